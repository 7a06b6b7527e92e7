"""User-item interactions with time and label: the form every interactions data set is read into."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Features = dict[str, dict[int, str]]


class RandomExposures(NamedTuple):
    """Items shown uniformly at random, after all interactions; raw ids, arrays of shape `[M]`.

    Attributes:
      user, item: `int64`, each pair at most once.
      label: `float32` in {0, 1}.
      time: `int64`.
    """

    user: np.ndarray
    item: np.ndarray
    label: np.ndarray
    time: np.ndarray


class Interactions(NamedTuple):
    """Events sorted by (user, time); ties keep the order of the file.

    Attributes:
      user, item: `int64 [M]`, raw ids. No (user, item) pair occurs twice.
      label: `float32 [M]` in {0, 1}, 1 = the user liked the item.
      time: `int64 [M]`, unix seconds; the position in the user's sequence where unknown.
      user_features, item_features: value of each raw id, by feature name; may be empty.
      report: JSON-able findings.
      user_keys, item_keys: `str [n]`, sorted, if ids are text: a raw id is then a place in it.
      random: exposures for the protocol `random_exposure`; None = there are none.
    """

    user: np.ndarray
    item: np.ndarray
    label: np.ndarray
    time: np.ndarray
    user_features: Features
    item_features: Features
    report: dict[str, Any]
    user_keys: np.ndarray | None = None
    item_keys: np.ndarray | None = None
    random: RandomExposures | None = None


def take(interactions: Interactions, keep: np.ndarray, **report: Any) -> Interactions:
    """Keep the rows where `keep` (`bool [M]`) is True, and add findings to the report."""
    if keep.all():  # avoids a second copy of everything
        return interactions._replace(report=interactions.report | report)
    return interactions._replace(
        user=interactions.user[keep],
        item=interactions.item[keep],
        label=interactions.label[keep],
        time=interactions.time[keep],
        report=interactions.report | report,
    )


def k_core(interactions: Interactions, *, core: int) -> Interactions:
    """Keep the largest set of rows in which every user and every item has `core` rows.

    That set is unique, so the order of removal does not matter. `core` of 0 or 1 keeps all.

    Raises:
      ValueError: no row is left.
    """
    users, items = _numbered(interactions.user), _numbered(interactions.item)
    keep, removed = np.ones(len(users), bool), []
    while True:
        enough = [np.bincount(ids[keep], minlength=ids.max() + 1) >= core for ids in (users, items)]
        kept = keep & enough[0][users] & enough[1][items]
        removed.append(int(keep.sum() - kept.sum()))
        if not removed[-1]:
            break
        keep = kept
    if not keep.any():
        raise ValueError(f"the {core}-core of {len(users)} rows is empty: choose a smaller core")
    return take(interactions, keep, core=core, core_removed_by_pass=removed)


def _numbered(ids: np.ndarray) -> np.ndarray:
    """Map ids to small distinct integers: the ids themselves if they are small enough."""
    if ids.min() >= 0 and ids.max() < len(ids):
        return ids
    return np.unique(ids, return_inverse=True)[1].astype(np.int32)
