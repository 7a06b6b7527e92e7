"""Scores of training lists from a retriever that did not see them.

A retriever is fitted on the interactions that later become the reranker's training positives. It
scores them higher than it will score future positives, so a reranker would learn to trust the
scores more than they deserve. With cross-fitting the training lists are split into k folds, and
each fold is scored by a retriever fitted on the others. That retriever does not see the fold's
interactions in the histories of other lists either.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from dnr_jax.data.lists import TEST, TRAIN, VALID, Events, Lists, events, origins
from dnr_jax.retrievers.quality import measure
from dnr_jax.retrievers.retriever import (
    FittedRetriever,
    Queries,
    Retriever,
    State,
    Training,
    take,
)
from dnr_jax.types import Array

# Odd 32-bit constant of Fibonacci hashing: it spreads neighbouring lists of a user over all folds.
HASH = 2_654_435_769


class FirstStage(NamedTuple):
    """The scores of all requests.

    Attributes:
      score: `(users int32 [n], requests int [n]) -> float32 [n, V]`, where `requests` are row
        numbers of the `Lists` it was fitted on.
      report: JSON-able findings: the fit's own, and the quality on test.
      seconds: wall time of each fit; the first one is on all training lists.
      state: state of the fit on all training lists; see `FittedRetriever`.
    """

    score: Callable[[np.ndarray, np.ndarray], np.ndarray]
    report: dict[str, Any]
    seconds: list[float]
    state: State | None


def fold_of(requests: np.ndarray, folds: int) -> np.ndarray:
    """Assign request numbers to `folds` folds by a hash: `int64 [n]` in 0..folds-1."""
    hashed = (requests.astype(np.uint64) * np.uint64(HASH)) % np.uint64(2**32)
    return ((hashed * np.uint64(folds)) >> np.uint64(32)).astype(np.int64)


def fit(
    retriever: Retriever, key: Array, lists: Lists, *, folds: int, progress: bool
) -> FirstStage:
    """Fit the retriever on the training lists, and again without each fold of them.

    Validation and test lists are always scored by the retriever fitted on all training lists.

    Args:
      retriever: what to fit.
      key: typed key; each fit folds its own number into it.
      lists: all lists; it fits only on training lists, and validation lists choose the epoch.
      folds: 0 = one retriever scores everything; k >= 2 = k-fold scores of training lists. For a
        retriever that does not learn it has no effect.
      progress: shows a bar per fit.

    Raises:
      ValueError: a fold contains all training lists.
    """
    train, folds = events(lists, TRAIN), folds if retriever.learns else 0
    queries = Queries(lists.user, lists.history, lists.feedback)
    seconds: list[float] = []

    def fit_on(number: int, kept: np.ndarray) -> FittedRetriever:
        if not kept.any():
            raise ValueError(f"one of {folds} folds contains all training lists: use fewer folds")
        training = _part(lists, queries, train, kept)
        began, own_key = time.monotonic(), jax.random.fold_in(key, number)
        fitted = retriever.fit(own_key, training, progress=progress)
        seconds.append(time.monotonic() - began)
        return fitted

    full = fit_on(0, np.ones(len(train.user), bool))
    fold = fold_of(train.request, folds) if folds else train.request
    parts = [fit_on(1 + n, fold != n) for n in range(folds)]
    report = dict(full.report) | {"cross_fit": folds}
    is_train = lists.split == TRAIN

    def score(users: np.ndarray, requests: np.ndarray) -> np.ndarray:
        del users  # queries contain their users
        asked = take(queries, requests)
        scores = full.score(asked).copy() if parts else full.score(asked)
        for n, part in enumerate(parts):
            mine = is_train[requests] & (fold_of(requests, folds) == n)
            if mine.any():
                scores[mine] = part.score(take(asked, mine))
        return scores

    return FirstStage(score, report | _quality(full, lists, queries), seconds, full.state)


def _part(lists: Lists, queries: Queries, train: Events, kept: np.ndarray) -> Training:
    """Return the data that a fit may see: only the `kept` training interactions."""
    some = Events(*(column[kept] for column in train))
    hidden = lists.split == TRAIN
    hidden[some.request] = False
    return Training(some, events(lists, VALID), _without(lists, queries, hidden), lists.catalogue)


def _without(lists: Lists, queries: Queries, hidden: np.ndarray) -> Queries:
    """Remove the events of `hidden` lists (`bool [R]`) from the histories, and close the gaps."""
    if not hidden.any():
        return queries
    seen = (queries.history > 0) & ~hidden[origins(lists)]
    order = np.argsort(seen, axis=1, kind="stable")  # padding first, then the events in order
    history, feedback = (
        np.take_along_axis(np.where(seen, column, 0), order, axis=1)
        for column in (queries.history, queries.feedback)
    )
    return Queries(queries.user, history, feedback)


def _quality(fitted: FittedRetriever, lists: Lists, queries: Queries) -> dict[str, Any]:
    before, test = events(lists, TRAIN, VALID), events(lists, TEST)
    counts = {
        "user_count": len(lists.catalogue.user_ids),
        "item_count": len(lists.catalogue.item_ids),
    }
    return {"test": measure(fitted.score, queries, before, test, **counts)}
