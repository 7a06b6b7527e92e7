"""Stateless integer hashes, the same on every machine."""

from __future__ import annotations

import numpy as np


def mix(seed: int, stream: int, *numbers: np.ndarray) -> np.ndarray:
    """Hash integer columns to uint64 (splitmix64 of Steele, Lea and Flood 2014).

    A random draw made from the hash depends on the row's own ids, not on its place in a file.
    """
    shape = np.broadcast_shapes(*(np.shape(number) for number in numbers))
    state = np.full(shape, (seed * 1000 + stream) % 2**64, np.uint64)
    for number in numbers:  # in place: fresh memory costs more than the arithmetic
        state += number.astype(np.uint64)
        state += np.uint64(0x9E3779B97F4A7C15)
        state ^= state >> np.uint64(30)
        state *= np.uint64(0xBF58476D1CE4E5B9)
        state ^= state >> np.uint64(27)
        state *= np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state
