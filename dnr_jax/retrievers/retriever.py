"""The interface of a first-stage retriever."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from dnr_jax.data.lists import Catalogue, Events
from dnr_jax.data.protocols import SCORES
from dnr_jax.named_arrays import flatten, unflatten
from dnr_jax.settings import Settings, knob
from dnr_jax.types import Array, Params

# What a retriever has learned: plain arrays by name.
State = Mapping[str, np.ndarray]


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

    def inputs(self) -> list[Path]:
        """Return the files that the scores depend on, other than those of the data set."""
        return []

    def check(self) -> None:
        """Refuse a single fold, which would leave nothing to fit on."""
        if self.cross_fit == 1:
            raise ValueError("cross_fit is 1: it must be 0 (off) or 2 or more")


class Queries(NamedTuple):
    """Requests at the time they arrived: the user, and the user's history until then.

    Attributes:
      user: `int32 [n]`, encoded ids.
      history, feedback: `int32 [n, T]`, as in `Lists`: left-padded, strictly before the request.
    """

    user: np.ndarray
    history: np.ndarray
    feedback: np.ndarray


def take(queries: Queries, rows: np.ndarray) -> Queries:
    """Return the queries of the given rows."""
    return Queries(*(column[rows] for column in queries))


class Training(NamedTuple):
    """The data that a retriever may be fitted on.

    Attributes:
      train: the interactions to learn from.
      valid: later ones, which may only choose the epoch.
      queries: the query of every list, by `Events.request`. Events of training lists that are not
        in `train` are removed from the histories, so no retriever sees a fold that it scores.
      catalogue: users and items with their features.
    """

    train: Events
    valid: Events
    queries: Queries
    catalogue: Catalogue

    @property
    def counts(self) -> dict[str, int]:
        """U and V, padding and unknown included."""
        users, items = self.catalogue.user_ids, self.catalogue.item_ids
        return {"user_count": len(users), "item_count": len(items)}

    def check(self) -> None:
        """Raise `ValueError` if there is no positive to train on or to choose the epoch by."""
        for split, part in (("training", self.train), ("validation", self.valid)):
            if not (part.label > 0.5).any():
                raise ValueError(
                    f"the {split} lists hold no positive: lower config.data.positive_rating"
                )


class ScoreCatalogue(Protocol):
    """Raw scores of the whole catalogue: `n` queries -> `float32 [n, V]`, higher = better.

    Columns 0 and 1 (padding, unknown) are meaningless. -inf means that the first stage does not
    return the item for the query; no other value may be infinite or NaN.
    """

    def __call__(self, queries: Queries) -> np.ndarray: ...


class FittedRetriever(NamedTuple):
    """A trained retriever.

    Attributes:
      score: its scores.
      report: JSON-able findings.
      state: the arrays from which `Retriever.restore` makes the scores again; None = it cannot be
        kept.
    """

    score: ScoreCatalogue
    report: dict[str, Any]
    state: State | None = None


class Fit(Protocol):
    """Trains only on `training.train`; `progress` shows a bar."""

    def __call__(self, key: Array, training: Training, *, progress: bool) -> FittedRetriever: ...


Restore = Callable[[State], ScoreCatalogue]


class Retriever(NamedTuple):
    """A first stage, defined by the function that trains it.

    Attributes:
      fit: trains it.
      learns: False = the scores come from elsewhere, and there is nothing to cross-fit.
      restore: makes the scores from a `FittedRetriever.state`; users that did not occur in training
        get those of an unknown user. None = it cannot be kept.
    """

    fit: Fit
    learns: bool = True
    restore: Restore | None = None


def named(params: Params) -> dict[str, np.ndarray]:
    """Name the arrays of nested dicts and lists by their path, as `tables.users.0`."""
    return flatten(params, ".")


def nested(state: State) -> dict[str, Any]:
    """Undo `named`, except that lists become dicts whose keys are the indices."""
    return unflatten(state, ".")
