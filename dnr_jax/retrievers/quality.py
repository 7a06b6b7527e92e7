"""The quality of a retriever: AUC against unseen items, and recall at 50."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dnr_jax.data.encoders import KNOWN
from dnr_jax.data.lists import Events
from dnr_jax.retrievers.retriever import Queries, ScoreCatalogue, take

RECALL_AT = 50
CHUNK = 256


def measure(
    score: ScoreCatalogue,
    queries: Queries,
    seen: Events,
    target: Events,
    *,
    user_count: int,
    item_count: int,
) -> dict[str, float]:
    """Rank each user's target positives among all items that the user has not seen.

    `target` has at most one request per user, whose number selects the query.

    An unseen item is one that is in the catalogue, not among the user's `seen` and not one of the
    user's target positives. AUC is P(positive above a random unseen item), with ties one half. It
    is exact: all unseen items are compared.

    Returns:
      `auc_user` (mean over users of the mean over their positives), `auc_micro` (mean over
      positives), `recall@50` (mean over users of the share of their positives that rank in the
      first 50 among the unseen items), `users`. NaN if no positive has an unseen item to compare
      with.
    """
    auc, hit, owner = [], [], []
    wanted = target.label > 0.5
    users, items = target.user[wanted], target.item[wanted]
    every, first = np.unique(users, return_index=True)
    requests = target.request[wanted][first]
    for chunk, asked in zip(_chunks(every), _chunks(requests), strict=True):
        rivals = np.zeros((len(chunk), item_count), bool)
        rivals[:, KNOWN:] = True
        for u, i in ((seen.user, seen.item), (users, items)):
            row, column = _within(chunk, u, i)
            rivals[row, column] = False
        row, column = _within(chunk, users, items)
        above, tied, count = _compare(score(take(queries, asked)), rivals, row, column)
        compared = count > 0
        worse = above + 0.5 * tied
        auc.append(1.0 - worse[compared] / count[compared])
        hit.append(worse[compared] < RECALL_AT)
        owner.append(chunk[row[compared]])
    if not any(map(len, auc)):
        return {"auc_user": np.nan, "auc_micro": np.nan, "recall@50": np.nan, "users": 0}
    return _summary(np.concatenate(auc), np.concatenate(hit), np.concatenate(owner), user_count)


def _summary(
    auc: np.ndarray, hit: np.ndarray, owner: np.ndarray, user_count: int
) -> dict[str, float]:
    positives = np.bincount(owner, minlength=user_count)
    present = positives > 0

    def per_user(values: np.ndarray) -> float:
        return float((np.bincount(owner, values, user_count)[present] / positives[present]).mean())

    return {
        "auc_user": per_user(auc),
        "auc_micro": float(auc.mean()),
        f"recall@{RECALL_AT}": per_user(hit),
        "users": int(present.sum()),
    }


def _chunks(numbers: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(numbers), CHUNK):
        yield numbers[start : start + CHUNK]


def _within(
    chunk: np.ndarray, users: np.ndarray, items: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the row in `chunk` (sorted) and the item of the pairs whose user is in it."""
    row = np.minimum(np.searchsorted(chunk, users), len(chunk) - 1)
    inside = chunk[row] == users
    return row[inside], items[inside]


def _compare(
    scores: np.ndarray, rivals: np.ndarray, row: np.ndarray, column: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count for each positive the rivals above it, those tied with it, and all of them."""
    count = rivals.sum(1)
    ordered = np.sort(np.where(rivals, scores, np.inf), axis=1)
    above, tied = np.zeros(len(row)), np.zeros(len(row))
    for r in np.unique(row):
        mine = row == r
        own = scores[r, column[mine]]
        left = np.searchsorted(ordered[r, : count[r]], own, "left")
        right = np.searchsorted(ordered[r, : count[r]], own, "right")
        above[mine], tied[mine] = count[r] - right, right - left
    return above, tied, count[row]
