"""Sequences without times (`user item item ...`, or `item item ...`) -> interactions."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import polars as pl


def read_sequences(path: Path) -> tuple[pl.DataFrame, list[str]]:
    """Read one user per line, items in time order; the place in the line is the time.

    If the first numbers rise from line to line, they are the users' numbers. Otherwise they are
    items, and the line number is the user.

    Raises:
      ValueError: a torn file, or a line that is not integers between blanks.
    """
    lines = _lines(path)
    items = lines.str.extract_all(r"\S+")
    lengths = items.list.len().to_numpy().astype(np.int64)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    values = items.explode(empty_as_null=False, keep_nulls=False).cast(pl.Int64, strict=False)
    if values.null_count():
        line = rows[int(values.is_null().arg_max() or 0)] + 1
        raise ValueError(f"{path}, line {line}: expected integers separated by blanks")
    numbers, starts = values.to_numpy(), np.cumsum(lengths) - lengths
    first = numbers[starts[lengths > 0]]
    numbered = len(first) > 2 and bool((np.diff(first) > 0).all())
    place = np.arange(len(numbers)) - starts[rows] - numbered
    users = numbers[starts[rows]] if numbered else rows + 1
    frame = pl.DataFrame({"user": users, "item": numbers, "time": place})
    how = "the user's number" if numbered else "an item: the number of the line is the user's"
    return frame.filter(pl.col("time") >= 0), [f"{path.name}: every line begins with {how}"]


def _lines(path: Path) -> pl.Series:
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is a torn gzip file ({error}): get it again") from error
    text = content.decode("utf-8-sig", "replace").strip()
    return pl.Series("line", text.split("\n"), pl.String)
