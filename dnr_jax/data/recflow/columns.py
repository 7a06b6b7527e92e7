"""Check that the columns of a file can be read in their roles, before any value is lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from dnr_jax.data.recflow import files

SMALL = (pl.UInt8, pl.UInt16, pl.UInt32)


def check_headers(days: Sequence[files.Day]) -> list[str]:
    """Read every header before any long work; return the names that needed stripping.

    Raises:
      ValueError: a file lacks columns, all of which one message names, or one holds no numbers.
    """
    unstripped: set[str] = set()
    for day in days:
        seen = files.scan(day.rows).collect_schema()
        missing = [name for name in files.COLUMNS if name not in seen]
        if missing:
            raise ValueError(
                f"{day.rows} lacks the column(s) {missing}; it has {seen.names()}. "
                "RecFlow's all_stage files carry all of them: check that this is one"
            )
        _check_kinds(day.rows, seen)
        unstripped |= set(_raw_names(day.rows)) - set(seen)
    return sorted(unstripped)


def _raw_names(path: Path) -> list[str]:
    with open(path, "rb") as file:
        parquet = file.read(4) == b"PAR1"
    return list(pl.read_parquet_schema(path) if parquet else pl.read_ipc_schema(path))


def _check_kinds(path: Path, schema: pl.Schema) -> None:
    """Refuse columns of a kind that holds no numbers, such as lists and dates."""
    for name in files.COLUMNS:
        kind = schema[name]
        if not (kind.is_numeric() or kind in (pl.Boolean, pl.String)):
            raise ValueError(
                f"{path}: column {name} is of type {kind}: it must hold {_wanted(name)}"
            )


def check_values(path: Path) -> None:
    """Refuse values that would be read as something else: ids beyond int64, flags of one half.

    Only columns whose type allows such values are looked at; in the published files none does.

    Raises:
      ValueError: naming file, column, type, row and the first bad value.
    """
    frame = files.scan(path)
    schema = frame.collect_schema()
    bad = {name: _bad(name, schema[name]) for name in files.COLUMNS if _doubtful(name, schema)}
    if not bad:
        return
    found = files.collect(frame.select(rule.any().alias(name) for name, rule in bad.items()), path)
    for name, is_bad in found.row(0, named=True).items():
        if is_bad:
            rows = frame.with_row_index("row").filter(bad[name]).select("row", name).head(1)
            row, value = files.collect(rows, path).row(0)
            raise ValueError(
                f"{path}: column {name} ({schema[name]}) holds {value!r} in row {row}: it must "
                f"hold {_wanted(name)}{_cure(schema[name])}"
            )


def _doubtful(name: str, schema: pl.Schema) -> bool:
    kind = schema[name]
    if name in files.INDICES:
        return kind == pl.String
    return not (kind.is_signed_integer() or kind in SMALL or kind == pl.Boolean)


def _bad(name: str, kind: pl.DataType) -> pl.Expr:
    """Mark values that are there, but are not what the column must hold."""
    column = pl.col(name)
    there = column.is_not_null() & ~column.is_nan() if kind.is_float() else column.is_not_null()
    if name in files.INDICES:
        return there & column.cast(pl.Float64, strict=False).is_null()
    whole = column.cast(pl.Int64, strict=False)
    wrong = whole.is_null() | (whole != column) if kind.is_float() else whole.is_null()
    return there & wrong


def _wanted(name: str) -> str:
    if name in files.INDICES:
        return "numbers"
    return "0 or 1" if name in (*files.FLAGS, *files.FEEDBACK) else "integers that fit int64"


def _cure(kind: pl.DataType) -> str:
    return "; number the values, and keep the map" if kind == pl.String else ""


def number(name: str) -> pl.Expr:
    """Read a column as int64 (flags and feedback as bool, indices as float64).

    Missing numbers become -1, missing flags and feedback False, missing or NaN indices null.
    Feedback counts on shown rows only.
    """
    column = pl.col(name)
    if name in files.INDICES:
        return column.cast(pl.Float64, strict=False).fill_nan(None)
    whole = column.cast(pl.Int64, strict=False)
    if name in files.FLAGS:
        return (whole > 0).fill_null(False)
    if name in files.FEEDBACK:
        shown = pl.col("realshow").cast(pl.Int64, strict=False) > 0
        return (shown & (whole > 0)).fill_null(False).alias(name)
    return whole.fill_null(-1)
