"""What a first-stage retriever is."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from dnr_jax.data.lists import Pairs
from dnr_jax.types import Array


class Score(Protocol):
    """Raw scores of the whole catalogue: `users` `int32 [n]` -> `float32 [n, V]`, higher = better.

    Columns 0 and 1 (padding, unknown) hold finite numbers without meaning.
    """

    def __call__(self, users: np.ndarray) -> np.ndarray: ...


class Fitted(NamedTuple):
    """A trained retriever: its scores and JSON-able findings."""

    score: Score
    report: dict[str, Any]


class Fit(Protocol):
    """Trains on `train` alone; `valid` may only choose the epoch.

    Arguments: `key`; `train`, `valid` pairs of encoded ids; `user_count` U, `item_count` V,
    padding and unknown included; `progress` shows a bar.
    """

    def __call__(
        self,
        key: Array,
        train: Pairs,
        valid: Pairs,
        *,
        user_count: int,
        item_count: int,
        progress: bool,
    ) -> Fitted: ...


class Retriever(NamedTuple):
    """A first stage, as the one function that trains it."""

    fit: Fit
