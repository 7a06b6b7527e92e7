"""Scores of training lists from a retriever that did not see them.

A retriever is fitted on the interactions that later become the reranker's training positives. It
scores them higher than it will score positives of the future, so a reranker would learn to trust
the scores more than they deserve. With k folds the training lists are dealt out, and each fold
is scored by a retriever fitted on the others (cross-fitting).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from dnr_jax.data.lists import TEST, TRAIN, VALID, Events, Lists, events
from dnr_jax.retrievers.quality import measure
from dnr_jax.retrievers.retriever import FittedRetriever, Retriever
from dnr_jax.types import Array

# Odd 32-bit constant of Fibonacci hashing: neighbouring lists of a user land in all folds.
HASH = 2_654_435_769


class FirstStage(NamedTuple):
    """The scores of all requests.

    Attributes:
      score: `(users int32 [n], requests int [n]) -> float32 [n, V]`, `requests` being row
        numbers of the `Lists` it was fitted on.
      report: JSON-able findings: the fit's own, and the quality on test.
    """

    score: Callable[[np.ndarray, np.ndarray], np.ndarray]
    report: dict[str, Any]


def fold_of(requests: np.ndarray, folds: int) -> np.ndarray:
    """Deal request numbers to `folds` folds by a hash: `int64 [n]` in 0..folds-1."""
    hashed = (requests.astype(np.uint64) * np.uint64(HASH)) % np.uint64(2**32)
    return ((hashed * np.uint64(folds)) >> np.uint64(32)).astype(np.int64)


def fit(
    retriever: Retriever, key: Array, lists: Lists, *, folds: int, progress: bool
) -> FirstStage:
    """Fit the retriever on the training lists, and again without each fold of them.

    Validation and test lists are always scored by the retriever of all training lists.

    Args:
      retriever: what to fit.
      key: typed key; each fit folds its own number into it.
      lists: all lists; only training lists are fitted on, valid ones choose the epoch.
      folds: 0 = one retriever scores everything; k >= 2 = k-fold scores of training lists.
      progress: shows a bar a fit.

    Raises:
      ValueError: a fold takes all training lists.
    """
    train, valid = events(lists, TRAIN), events(lists, VALID)
    counts = {
        "user_count": len(lists.catalogue.user_ids),
        "item_count": len(lists.catalogue.item_ids),
    }

    def fit_on(number: int, kept: np.ndarray) -> FittedRetriever:
        if not kept.any():
            raise ValueError(f"one of {folds} folds takes all training lists: use fewer folds")
        some = Events(*(column[kept] for column in train))
        own_key = jax.random.fold_in(key, number)
        return retriever.fit(own_key, some, valid, progress=progress, **counts)

    full = fit_on(0, np.ones(len(train.user), bool))
    fold = fold_of(train.request, folds) if folds else train.request
    parts = [fit_on(1 + n, fold != n) for n in range(folds)]
    report = dict(full.report) | {"cross_fit": folds} | _quality(full, lists, counts)
    is_train = lists.split == TRAIN

    def score(users: np.ndarray, requests: np.ndarray) -> np.ndarray:
        scores = full.score(users).copy() if parts else full.score(users)
        for n, part in enumerate(parts):
            mine = is_train[requests] & (fold_of(requests, folds) == n)
            if mine.any():
                scores[mine] = part.score(users[mine])
        return scores

    return FirstStage(score, report)


def _quality(fitted: FittedRetriever, lists: Lists, counts: dict[str, int]) -> dict[str, Any]:
    before, test = events(lists, TRAIN, VALID), events(lists, TEST)
    return {"test": measure(fitted.score, before, test, **counts)}
