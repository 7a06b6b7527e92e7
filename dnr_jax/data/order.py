"""Sort the rows of a file by user and time, and keep each (user, item) pair once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy import sparse

from dnr_jax.data import ids
from dnr_jax.data.hashing import mix
from dnr_jax.data.ids import Ids
from dnr_jax.data.interactions import Interactions

BLOCK = 1 << 17  # rows sorted at a time


class Column(NamedTuple):
    """Ids by row: `int32 [M]`, places in the sorted list of distinct ids."""

    codes: np.ndarray
    ids: Ids


class Names(NamedTuple):
    """What the codes of users and items stand for."""

    user: Ids
    item: Ids

    def put(self, events: Interactions) -> Interactions:
        """Put raw ids for codes."""
        return events._replace(user=self.user.raw(events.user), item=self.item.raw(events.item))


def events(frame: pl.DataFrame, *, tie_seed: int, repeats: str) -> tuple[Interactions, Names]:
    """Put rows in order, each (user, item) pair once, with codes (`int32`) for ids.

    To save memory, each column is taken out of the frame and freed once its next form exists.

    Args:
      frame: `user`, `item` (int64 or categorical), `time` (int64) and `liked` (bool; if absent,
        all are liked); it is empty afterwards.
      tie_seed: see `in_order`.
      repeats: see `in_order`.
    """
    user, item = (Column(*ids.code(frame.drop_in_place(name))) for name in ("user", "item"))
    time = frame.drop_in_place("time").to_numpy()
    liked = frame.drop_in_place("liked").to_numpy() if frame.columns else np.ones(len(time), bool)
    order = in_order(user, item, time, tie_seed=tie_seed, repeats=repeats)
    time, liked = time[order], liked[order]
    found = Interactions(
        user=user.codes[order],
        item=item.codes[order],
        label=liked.astype(np.float32),
        time=time,
        user_features={},
        item_features={},
        report={},
        user_keys=user.ids.keys,
        item_keys=item.ids.keys,
    )
    return found, Names(user.ids, item.ids)


def in_order(
    user: Column, item: Column, time: np.ndarray, *, tie_seed: int, repeats: str
) -> np.ndarray:
    """Return the rows to keep, sorted by user and time: `int32 [m]`.

    Users are sorted in blocks, so memory and time grow linearly with the rows.

    Args:
      user: user of each row; fewer than 2^31 rows.
      item: item of each row.
      time: `int64 [M]`.
      tie_seed: seed of the order among equal times of a user; 0 = the order of the file.
      repeats: which row of a pair stays, "first" or "last" in that order.
    """
    rows, bounds = _by_user(user.codes, len(user.ids.values))
    left = 0
    for start, end in _blocks(bounds):
        own = rows[start:end]
        keys = [time[own], user.codes[own]]  # the last one counts most
        if tie_seed:
            raw = (one.ids.raw(one.codes[own]) for one in (user, item))
            keys.insert(0, mix(tie_seed, 0, *raw))
        own = own[np.lexsort(keys)]
        pair = user.codes[own] * np.int64(len(item.ids.values)) + item.codes[own]
        own = own[_once(pair, repeats)]
        rows[left : left + len(own)] = own  # in place: never longer than the block itself
        left += len(own)
    return rows[:left]


def _by_user(user: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort rows by user, stably, and return where each user's rows begin: a counting sort.

    SciPy's conversion from COO to CSR does this, for a matrix with one row per user and one column
    per row of the file.
    """
    rows = np.arange(len(user), dtype=np.int32)
    ones = np.ones(len(user), bool)
    made = sparse.coo_array((ones, (user, rows)), (count, len(user))).tocsr()
    return made.indices, made.indptr


def _blocks(bounds: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the rows of whole users, about `BLOCK` at a time."""
    start = 0
    while start < bounds[-1]:
        end = int(bounds[np.searchsorted(bounds, min(start + BLOCK, bounds[-1]))])
        yield start, end
        start = end


def _once(pair: np.ndarray, repeats: str) -> np.ndarray:
    """Return where each pair occurs for the first or the last time, in ascending order."""
    last = len(pair) - 1
    found = np.unique(pair if repeats == "first" else pair[::-1], return_index=True)[1]
    return np.sort(found if repeats == "first" else last - found)
