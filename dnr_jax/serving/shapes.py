"""Shapes of batches: only a few, because each is compiled."""

from __future__ import annotations

from typing import Any

import numpy as np


def to_power_of_two(array: Any) -> np.ndarray:
    """Pad with empty requests to a power of two, so few batch sizes are compiled."""
    array = np.asarray(array)
    rows = 1 << (len(array) - 1).bit_length()
    if rows == len(array):
        return array
    padded = np.zeros((rows, *array.shape[1:]), array.dtype)  # a tenth of the time of np.pad
    padded[: len(array)] = array
    return padded
