"""Code raw ids by their places among the sorted distinct ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl

CHUNK = 1 << 17


class Ids(NamedTuple):
    """The distinct raw ids of a column, sorted: `int64 [n]` or `str [n]`."""

    values: np.ndarray

    @property
    def keys(self) -> np.ndarray | None:
        """The ids if they are text; None if they are integers."""
        return None if self.values.dtype == np.int64 else self.values

    def raw(self, codes: np.ndarray) -> np.ndarray:
        """Return the integers at places in `values`; for text ids, the places themselves."""
        return codes.astype(np.int64) if self.keys is not None else self.values[codes]


def code(column: pl.Series) -> tuple[np.ndarray, Ids]:
    """Code integers, or a categorical column, by their place among the sorted ids: `int32 [M]`.

    Text counts as integers if every value is an integer in its usual decimal form.
    """
    known = column.unique()
    if column.dtype == pl.Int64:
        values = known.sort().to_numpy()
        return _places(values, column), Ids(values)
    physical = known.to_physical().to_numpy()
    values, ranks = np.unique(_numbers(known.cast(pl.String)), return_inverse=True)
    places = np.zeros(physical.max() + 1, np.int32)
    places[physical] = ranks
    return places[column.to_physical().to_numpy()], Ids(values)


def _places(values: np.ndarray, column: pl.Series) -> np.ndarray:
    """Look the column up in parts, to avoid a second column of 8 bytes per row in memory."""
    find, codes = _finder(values, len(column)), np.empty(len(column), np.int32)
    for start in range(0, len(column), CHUNK):
        codes[start : start + CHUNK] = find(column.slice(start, CHUNK).to_numpy())
    return codes


def _finder(values: np.ndarray, rows: int) -> Callable[[np.ndarray], np.ndarray]:
    """Find places by a table if the ids span no more integers than there are rows."""
    low, span = values[:1], int(values[-1]) - int(values[0]) + 1 if len(values) else 1
    if span > rows:
        return lambda part: np.searchsorted(values, part)
    table = np.zeros(span, np.int32)
    table[values - low] = np.arange(len(values))
    return lambda part: table[part - low]


def _numbers(text: pl.Series) -> np.ndarray:
    numbers = text.cast(pl.Int64, strict=False)
    if not numbers.null_count() and (numbers.cast(pl.String) == text).all():
        return numbers.to_numpy()
    return text.to_numpy().astype(np.str_)
