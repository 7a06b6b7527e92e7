"""Assign each request to a split: from the table's column, by time, or by a hash."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl

from dnr_jax.data.store import SPLITS
from dnr_jax.data.table.settings import TableSettings


def assign(
    requests: pl.DataFrame, settings: TableSettings, *, seed: int, place: str
) -> tuple[pl.DataFrame, str]:
    """Put every request into a split, and say how.

    Args:
      requests: the result of `gather`.
      settings: how; "auto" takes the table's own split, else time, else a hash of the request.
      seed: seed of the hashes.
      place: name of the table, for messages.

    Returns:
      `requests` with `split` as int8, the position in `SPLITS`; and a sentence.

    Raises:
      ValueError: a column that the rule needs is absent, or a split has no request or no positive.
    """
    has = set(requests.columns)
    by = settings.split_by
    if by == "auto":
        by = "column" if "split" in has else "time" if "timestamp" in has else "request"
    needs = {"column": "split", "time": "timestamp", "user": "user_id"}.get(by, "request_id")
    if needs not in has:
        raise ValueError(f"split_by is {by}, but {place} has no column {needs}")
    number, words = {"column": _by_column, "time": _by_time}.get(by, _by_hash)(
        requests, settings, by, seed
    )
    split = requests.with_columns(split=pl.Series(number, dtype=pl.Int8))
    _check_splits(split, words, place)
    return split, words


def _by_column(
    requests: pl.DataFrame, settings: TableSettings, by: str, seed: int
) -> tuple[np.ndarray, str]:
    names = requests["split"].to_list()
    number = np.array([SPLITS.index(name) for name in names], np.int8)
    if "valid" in names:
        return number, "as the table says"
    train = requests.filter(pl.Series(number == 0))
    share = settings.valid_share
    if "timestamp" in requests.columns:
        edge = train["timestamp"].sort()[int((1 - share) * len(train))] if len(train) else 0
        held, words = (requests["timestamp"] >= edge).to_numpy(), f"the last {share:.0%}"
    else:
        held, words = _hashes(requests["request_id"], seed) < share, f"{share:.0%} by hash"
    number[(number == 0) & held] = 1
    return number, f"as the table says; validation is {words} of its training requests"


def _by_time(
    requests: pl.DataFrame, settings: TableSettings, by: str, seed: int
) -> tuple[np.ndarray, str]:
    """Cut at two points in time; requests of the same time stay together."""
    times = requests["timestamp"].to_numpy()
    shares = (1 - settings.valid_share - settings.test_share, 1 - settings.test_share)
    edges = [np.sort(times)[int(share * len(times))] for share in shares]
    if edges[0] == edges[1]:  # coarse times: validation is the last one before the test
        edges[0] = times[times < edges[1]].max(initial=times.min())
    days = [str(np.datetime64(int(edge), "us")) for edge in edges]
    words = f"by time: validation from {days[0]} on, test from {days[1]} on"
    return np.searchsorted(edges, times, side="right").astype(np.int8), words


def _by_hash(
    requests: pl.DataFrame, settings: TableSettings, by: str, seed: int
) -> tuple[np.ndarray, str]:
    ids = requests["request_id" if by == "request" else "user_id"]
    edges = [1 - settings.valid_share - settings.test_share, 1 - settings.test_share]
    number = np.searchsorted(edges, _hashes(ids, seed), side="right").astype(np.int8)
    return number, f"by a hash of the {by}, as shares of all"


def _hashes(ids: pl.Series, seed: int) -> np.ndarray:
    """Draw a number in [0, 1) for each id, the same on every machine: `float64 [R]`."""
    key = seed.to_bytes(8, "little")
    digests = [
        hashlib.blake2b(str(value).encode(), digest_size=8, key=key).digest() for value in ids
    ]
    return np.frombuffer(b"".join(digests), "<u8") / 2.0**64


def _check_splits(requests: pl.DataFrame, words: str, place: str) -> None:
    for number, name in enumerate(SPLITS):
        own = requests.filter(pl.col("split") == number)
        lacking = "no request" if not len(own) else "no request with a positive label"
        if not len(own) or not own["positives"].sum():
            raise ValueError(
                f"{place}: {lacking} in {name} (splits {words}): use more requests, other shares, "
                "split_by=request, or a lower positive_from"
            )
