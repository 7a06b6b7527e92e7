"""From a table's own columns to typed columns, named by role."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import polars as pl

from dnr_jax.data.encoders import Vocabulary
from dnr_jax.data.table.reader import FILE, ROW, Source
from dnr_jax.data.table.schema import Schema

LARGEST_EXACT = 2**53  # above it, a float cannot hold every id exactly
TRUE, FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
SPLIT_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "vali": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
}
# Formats of times in text; those without a zone are read as UTC.
NAIVE = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M")
ZONED = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z")
# Microseconds in a unit, and the least value read in it: 1973 in the next finer unit.
UNITS: tuple[tuple[str, int, float], ...] = (
    ("seconds", 10**6, 0),
    ("milliseconds", 10**3, 1e11),
    ("microseconds", 1, 1e14),
    ("nanoseconds", 0, 1e17),
)


class Typed(NamedTuple):
    """A table whose columns have fixed names and types.

    Attributes:
      source: the table as given.
      schema: the roles of its columns.
      time_unit: how times are read, in words; "" = there are none.
      frame: `ROW`; by role `request_id`, `item_id`, `user_id` (int64 or text), `score`, `rank`,
        `label`, `weight`, `propensity` (float64), `position` (float64), `exposed` (bool),
        `timestamp` (int64, microseconds), `split` (text), `history` (list of ids), `history_time`
        (list of int64), and features under their own names: ids (int64 or text), numbers
        (float64), lists of either.
    """

    source: Source
    schema: Schema
    time_unit: str
    frame: pl.LazyFrame


def type_of(words: Vocabulary) -> type[pl.DataType]:
    """Return the frame type of the ids of a vocabulary."""
    return pl.String if words.keys.dtype.kind == "U" else pl.Int64


def typed(source: Source, schema: Schema, unit: str) -> Typed:
    """Type the columns in use; values that cannot be read become null (see `checks`)."""
    parts = [pl.col(ROW)]
    for role, name in schema.columns.items():
        parts.append(_BY_ROLE[role](name, source.types[name], unit).alias(role))
    if schema.labels:
        parts.append(joined_label(schema, source.types).alias("label"))
    for feature in schema.features:
        kind = source.types[feature.name]
        parts.append(_BY_KIND[feature.kind](feature.name, kind, unit).alias(feature.name))
    return Typed(source, schema, unit, source.frame.select(parts))


def joined_label(schema: Schema, types: Mapping[str, pl.DataType]) -> pl.Expr:
    """Combine the label columns by weight: a missing one counts as 0, unless all are missing."""
    columns = [number(name, types[name]) for name in schema.labels]
    weights = schema.labels.values()
    total = pl.sum_horizontal(c * w for c, w in zip(columns, weights, strict=True))
    return pl.when(pl.any_horizontal(c.is_not_null() for c in columns)).then(total)


def number(name: str, kind: pl.DataType, unit: str = "") -> pl.Expr:
    """Read a column as float64; null if a text is not a number."""
    column = pl.col(name)
    if kind == pl.String:
        column = column.str.strip_chars()
    return column.cast(pl.Float64, strict=False)


def quantity(name: str, kind: pl.DataType, unit: str = "") -> pl.Expr:
    """Read a numeric feature as float64; NaN is a missing value."""
    return number(name, kind).fill_nan(None)


def identifier(name: str, kind: pl.DataType, unit: str = "") -> pl.Expr:
    """Read a column of ids as int64 or text.

    Unsigned 64-bit ids become text because they may exceed int64. A float is an id if it is a
    whole number (pandas turns ids into floats if one is missing), else null.
    """
    column = pl.col(name)
    if kind.is_float() or kind.is_decimal():
        value = column.cast(pl.Float64)
        whole = value.is_finite() & (value == value.floor()) & (value.abs() < LARGEST_EXACT)
        return pl.when(whole).then(value).cast(pl.Int64, strict=False)
    if kind.is_integer() and kind not in (pl.UInt64, pl.Int128):
        return column.cast(pl.Int64)
    return column.cast(pl.String)


def ids(name: str, kind: pl.DataType, unit: str = "") -> pl.Expr:
    """Read a column of lists of ids; text is split at blanks, commas or bars."""
    if kind == pl.String:
        parts = pl.col(name).str.extract_all(r"[^\s,|\[\]]+")
        return pl.when(pl.col(name).is_not_null()).then(parts)
    column = pl.col(name)
    if isinstance(kind, pl.Array):
        column = column.arr.to_list()
    inner = getattr(kind, "inner", pl.Int64())
    whole = inner.is_integer() and inner not in (pl.UInt64, pl.Int128)
    return column.cast(pl.List(pl.Int64 if whole else pl.String))


def numbers(name: str, kind: pl.DataType, unit: str = "") -> pl.Expr:
    """Read a column of lists of numbers as lists of float32."""
    column = pl.col(name)
    if isinstance(kind, pl.Array):
        column = column.arr.to_list()
    return column.cast(pl.List(pl.Float32), strict=False)


def flag(name: str, kind: pl.DataType, unit: str = "") -> pl.Expr:
    """Read a column of true and false, 1 and 0, or yes and no; null for anything else."""
    text = pl.col(name).cast(pl.String).str.strip_chars().str.to_lowercase()
    return pl.when(text.is_in(TRUE)).then(True).when(text.is_in(FALSE)).then(False)


def split_name(name: str, kind: pl.DataType, unit: str = "") -> pl.Expr:
    """Read a column of split names, by any of their customary names; null for any other."""
    text = pl.col(name).cast(pl.String).str.strip_chars().str.to_lowercase()
    return text.replace_strict(SPLIT_NAMES, default=None, return_dtype=pl.String)


def time(name: str, kind: pl.DataType, unit: str) -> pl.Expr:
    """Read a column of times as int64 microseconds since 1970; null if it is not a time."""
    column = pl.col(name)
    if kind in (pl.Datetime, pl.Date):
        return column.cast(pl.Datetime("us")).cast(pl.Int64)
    if kind == pl.String:
        text = column.str.strip_chars()
        naive = [text.str.to_datetime(form, strict=False, time_unit="us") for form in NAIVE]
        zoned = [text.str.to_datetime(form, strict=False, time_unit="us") for form in ZONED]
        zoned = [part.dt.replace_time_zone(None) for part in zoned]
        day = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
        return pl.coalesce(*naive, *zoned, day).cast(pl.Int64)
    factor = next(factor for word, factor, _ in UNITS if word == unit)
    if kind.is_integer():
        whole = column.cast(pl.Int64, strict=False)
        return whole * factor if factor else whole // 1000
    value = column.cast(pl.Float64, strict=False)
    whole = (value * factor if factor else value / 1000).round()
    return pl.when(value.is_finite()).then(whole).cast(pl.Int64, strict=False)


def time_unit(kind: pl.DataType, low: float | None, high: float | None) -> str:
    """Tell how times are read, from their type and, for numbers, their magnitude.

    Raises:
      ValueError: the earliest and the latest time are in different units.
    """
    if kind in (pl.Datetime, pl.Date):
        return "dates" if kind == pl.Date else "dates and times"
    if kind == pl.String:
        return "ISO dates and times, UTC where they name no zone"
    if low is None or high is None:
        return "seconds"
    first, last = _unit(low), _unit(high)
    if first != last and low > UNITS[1][2] / 1000:
        raise ValueError(f"from {low:.0f} ({first}) to {high:.0f} ({last})")
    return last


def _unit(value: float) -> str:
    return [name for name, _, least in UNITS if value >= least or not least][-1]


def times(name: str, kind: pl.DataType, unit: str) -> pl.Expr:
    """Read a column of lists of times; numbers are in the unit of `timestamp`."""
    column = pl.col(name).arr.to_list() if isinstance(kind, pl.Array) else pl.col(name)
    inner = getattr(kind, "inner", pl.Int64())
    if inner in (pl.Datetime, pl.Date):
        return column.cast(pl.List(pl.Datetime("us"))).cast(pl.List(pl.Int64))
    factor = next((factor for word, factor, _ in UNITS if word == unit), 1)
    value = pl.element().cast(pl.Float64, strict=False)
    whole = (value * factor if factor else value / 1000).round()
    return column.list.eval(whole.cast(pl.Int64, strict=False))


def is_time(kind: pl.DataType) -> bool:
    """Tell whether a column of this type can be read as times."""
    return kind in (pl.Datetime, pl.Date, pl.String) or kind.is_numeric()


_Read = Callable[[str, pl.DataType, str], pl.Expr]
_BY_ROLE: Mapping[str, _Read] = {
    "request_id": identifier,
    "item_id": identifier,
    "user_id": identifier,
    "score": number,
    "rank": number,
    "position": number,
    "weight": number,
    "propensity": number,
    "exposed": flag,
    "split": split_name,
    "timestamp": time,
    "history": ids,
    "history_time": times,
}
_BY_KIND: Mapping[str, _Read] = {
    "id": identifier,
    "bag": ids,
    "numeric": quantity,
    "vector": numbers,
}

__all__ = ["FILE", "ROW", "Typed", "typed"]
