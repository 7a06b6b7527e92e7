"""What a first-stage retriever is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from dnr_jax.data.lists import Events
from dnr_jax.data.protocols import SCORES
from dnr_jax.settings import Settings, knob
from dnr_jax.types import Array


@dataclass(frozen=True, kw_only=True)
class RetrieverSettings(Settings):
    """Base of the settings of every retriever."""

    cross_fit: int = knob(
        2,
        "folds: training lists are scored by retrievers blind to them; 0 = off",
        at_least=0,
        at_most=100,
    )
    score: str = knob("minmax", "logit -> x: minmax (per request) | sigmoid | rank", one_of=SCORES)

    def check(self) -> None:
        """Refuse a single fold, which would leave nothing to fit on."""
        if self.cross_fit == 1:
            raise ValueError("cross_fit is 1: it must be 0 (off) or 2 or more")


class ScoreCatalogue(Protocol):
    """Raw scores of the whole catalogue: `users` `int32 [n]` -> `float32 [n, V]`, higher = better.

    Columns 0 and 1 (padding, unknown) hold finite numbers without meaning.
    """

    def __call__(self, users: np.ndarray) -> np.ndarray: ...


class FittedRetriever(NamedTuple):
    """A trained retriever: its scores and JSON-able findings."""

    score: ScoreCatalogue
    report: dict[str, Any]


class Fit(Protocol):
    """Trains on `train` alone; `valid` may only choose the epoch.

    Arguments: `key`; `train`, `valid` pairs of encoded ids; `user_count` U, `item_count` V,
    padding and unknown included; `progress` shows a bar.
    """

    def __call__(
        self,
        key: Array,
        train: Events,
        valid: Events,
        *,
        user_count: int,
        item_count: int,
        progress: bool,
    ) -> FittedRetriever: ...


class Retriever(NamedTuple):
    """A first stage, as the one function that trains it."""

    fit: Fit
