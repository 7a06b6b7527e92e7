"""Find what is wrong with a table; one message gives place, value, expectation and remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from dnr_jax.data.table import columns
from dnr_jax.data.table.columns import Typed
from dnr_jax.data.table.faults import FEATURES, LABEL, ROLES, Column, Fault, of
from dnr_jax.data.table.naming import as_in
from dnr_jax.data.table.reader import ROW, Source, collect, locate
from dnr_jax.data.table.schema import Schema

IDS = ("request_id", "item_id", "user_id")
NUMBERS = ("score", "rank", "position", "weight", "propensity")


def check_types(source: Source, schema: Schema) -> None:
    """Refuse columns whose type does not fit their role; no row is read.

    Raises:
      ValueError: names the column, its type and the expected type.
    """
    for role, name in schema.columns.items():
        kind, expected = source.types[name], _expected_type(role)
        if not _fits(role, kind, source, schema):
            raise ValueError(
                f"{source.place}: column {name} ({role}) is {kind}, expected {expected}: convert "
                f"it, or name another column, as in {as_in(role)}"
            )
    for name in schema.labels:
        if not _is_number(source.types[name]):
            raise ValueError(
                f"{source.place}: column {name} (a label) is {source.types[name]}, expected a "
                f"number: convert it, or name another column, as in {as_in('label')}"
            )


def _expected_type(role: str) -> str:
    if role in IDS:
        return "ints or text"
    if role == "history":
        return "a list of ids"
    if role == "history_time":
        return "a list of dates and times, or of numbers if timestamp is a number"
    if role == "timestamp":
        return "dates, times, or seconds or milliseconds since 1970"
    return {"exposed": "true and false", "split": "train, valid and test"}.get(role, "a number")


def _fits(role: str, kind: pl.DataType, source: Source, schema: Schema) -> bool:
    inner = getattr(kind, "inner", None)
    if role == "history":
        return kind == pl.String or (
            inner is not None and (inner.is_integer() or inner == pl.String)
        )
    if role == "history_time":
        clock = source.types.get(schema.columns.get("timestamp", ""), pl.String())
        in_time = inner in (pl.Datetime, pl.Date)
        return inner is not None and (in_time or (clock.is_numeric() and inner.is_numeric()))
    if inner is not None or isinstance(kind, pl.Struct):
        return False
    if role in NUMBERS:
        return _is_number(kind)
    return columns.is_time(kind) if role == "timestamp" else kind not in (pl.Binary, pl.Object)


def _is_number(kind: pl.DataType) -> bool:
    return kind.is_numeric() or kind in (pl.Boolean, pl.String, pl.Null)


def check_values(table: Typed, *, score_as_is: bool) -> int:
    """Check every value once and return the number of rows.

    Args:
      table: the table to check.
      score_as_is: whether scores are used unchanged, and so must lie in [0, 1].

    Raises:
      ValueError: the table is empty, or there is a `Fault`; the first such row is named.
    """
    source, schema = table.source, table.schema
    faults = [*_faults(source, schema, table.time_unit, score_as_is)]
    counts = [fault.bad.fill_null(False).sum().alias(str(n)) for n, fault in enumerate(faults)]
    found = collect(source.frame.select(pl.len().alias("rows"), *counts), source.files)
    row = found.row(0, named=True)
    if not row["rows"]:
        raise ValueError(f"{source.place} has no rows: it needs one row per candidate")
    for n, fault in enumerate(faults):
        if row[str(n)]:
            raise _error(source, fault, row[str(n)])
    return int(row["rows"])


def _error(source: Source, fault: Fault, count: int) -> ValueError:
    bad = source.frame.filter(fault.bad.fill_null(False)).select(ROW, fault.column)
    first = collect(bad.bottom_k(1, by=ROW), source.files).row(0)
    return ValueError(
        f"{locate(source, first[0])}: {fault.column} is {shown(first[1])}, expected "
        f"{fault.expected} ({count} such row{'s' * (count > 1)}). {fault.cure}"
    )


def shown(value: Any) -> str:
    """Write a value for a message: `missing`, or as Python writes it, at most 80 characters."""
    if value is None:
        return "missing"
    whole = isinstance(value, float) and value.is_integer() and abs(value) < columns.LARGEST_EXACT
    text = repr(int(value) if whole else value)
    return text if len(text) <= 80 else text[:77] + "..."


def _faults(source: Source, schema: Schema, unit: str, score_as_is: bool) -> Iterator[Fault]:
    for role, name in schema.columns.items():
        yield from of(Column(name, source.types[name], unit), ROLES.get(role, ()))
    if score_as_is and "score" in schema.columns:
        name = schema.columns["score"]
        value = columns.number(name, source.types[name])
        cure = "Choose score=minmax, rank or sigmoid for scores of another scale."
        yield Fault(name, ~value.is_between(0, 1), "a score in [0, 1]", cure)
    for name in schema.labels:
        yield from of(Column(name, source.types[name], unit), LABEL)
    for feature in schema.features:
        name = feature.name
        yield from of(Column(name, source.types[name], unit), FEATURES[feature.kind])
    if {"history", "history_time"} <= set(schema.columns):
        yield _uneven_history(source, schema)
    yield from _unseen_labels(source, schema)


def _uneven_history(source: Source, schema: Schema) -> Fault:
    name, clock = schema.columns["history"], schema.columns["history_time"]
    events = columns.ids(name, source.types[name]).list.len()
    times = columns.times(clock, source.types[clock], columns.UNITS[0][0]).list.len()
    differ = events.fill_null(0) != times.fill_null(0)
    cure = "Give each event its time, or leave the times out."
    return Fault(clock, differ, f"as many times as {name} has items", cure)


def _unseen_labels(source: Source, schema: Schema) -> Iterator[Fault]:
    """Find positive labels of candidates that are marked as not shown."""
    columns_ = schema.columns
    for name in schema.labels:
        positive = columns.number(name, source.types[name]) > 0
        if "exposed" in columns_:
            own = columns_["exposed"]
            hidden = ~columns.flag(own, source.types[own]).fill_null(False)
            expected = f"no feedback on a candidate that {own} says was not shown"
        elif "position" in columns_:
            own = columns_["position"]
            hidden = pl.col(own).is_null()
            expected = f"no feedback on a candidate without {own}, which was not shown"
        else:
            continue
        cure = f"Correct {own}, or leave that column out if labels come from elsewhere."
        yield Fault(name, positive & hidden, expected, cure)
