"""The history of each request: as the table gives it, or the user's own earlier positives."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl


class Past(NamedTuple):
    """History events of requests, as slices of one array.

    Attributes:
      items: `int32 [E]`, encoded items; within a slice the latest is last.
      start, end: `int64 [R]`, the slice of each request.
      words: where the events come from.
      dropped: events left out because they are not before their request.
    """

    items: np.ndarray
    start: np.ndarray
    end: np.ndarray
    words: str
    dropped: int = 0

    def latest(self, rows: slice, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the last events of some requests, left-padded: items and where `[n, length]`."""
        place = self.end[rows, None] + np.arange(-length, 0)
        where = place >= self.start[rows, None]
        if not len(self.items):
            return np.zeros(place.shape, np.int32), np.zeros(place.shape, bool)
        return np.where(where, self.items[np.where(where, place, 0)], 0).astype(np.int32), where


def given(requests: pl.DataFrame, items: pl.DataFrame) -> Past:
    """Take the histories of the table; events with a time at or after the request are left out.

    Args:
      requests: with `q`, `history`, and `history_time` (of equal length) if the table has it.
      items: see `fit.Learned`; an item that it lacks is unknown.
    """
    lists = [name for name in ("history", "history_time") if name in requests.columns]
    timed = len(lists) == 2 and "timestamp" in requests.columns
    wanted = ["q", *lists, *(["timestamp"] if timed else [])]
    events = requests.select(wanted).drop_nulls("history").explode(lists).drop_nulls("history")
    count = len(events)
    if timed:
        before = pl.col("history_time") < pl.col("timestamp")
        events = events.filter(before).sort("q", "history_time", maintain_order=True)
    events = events.with_columns(pl.col("history").cast(items["item_id"].dtype, strict=False))
    codes = events.join(
        items.select("item_id", "code"),
        left_on="history",
        right_on="item_id",
        how="left",
        maintain_order="left",
    )
    sizes = np.bincount(codes["q"].to_numpy(), minlength=len(requests))
    end = np.cumsum(sizes)
    encoded = codes["code"].fill_null(1).to_numpy()
    return Past(encoded, end - sizes, end, "the table's own histories", count - len(events))


def derived(requests: pl.DataFrame, positives: pl.DataFrame) -> Past:
    """Take the user's own positives from requests strictly older than this one.

    Args:
      requests: with `q`, `user_id` and `timestamp`.
      positives: the positives of all requests: `q`, `code`.
    """
    users = requests["user_id"].rank("dense").fill_null(0).to_numpy().astype(np.int64)
    times = requests["timestamp"].rank("dense").to_numpy().astype(np.int64)
    key = users * (times.max() + 1) + times  # by user, then by time
    of = positives["q"].to_numpy()
    order = np.lexsort((positives["code"].to_numpy(), key[of]))
    events = key[of][order]
    start = np.searchsorted(events, users * (times.max() + 1), "left")
    end = np.searchsorted(events, key, "left")
    start = np.where(users > 0, start, end)  # an unnamed user has no history
    words = "the user's own positives of earlier requests"
    return Past(positives["code"].to_numpy()[order], start, end, words)


def none(requests: pl.DataFrame) -> Past:
    """Leave every history empty."""
    zeros = np.zeros(len(requests), np.int64)
    return Past(np.zeros(0, np.int32), zeros, zeros, "none: it takes user_id and timestamp")


def past(requests: pl.DataFrame, items: pl.DataFrame, positives: pl.DataFrame) -> Past:
    """Choose `given` if the table has histories, else `derived` if possible, else `none`."""
    if "history" in requests.columns:
        return given(requests, items)
    if {"user_id", "timestamp"} <= set(requests.columns):
        return derived(requests, positives)
    return none(requests)


__all__ = ["Past", "past"]
