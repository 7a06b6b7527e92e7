"""Side tables: separate files of user or item features, keyed by id."""

from __future__ import annotations

import logging
from typing import Any

import polars as pl

from dnr_jax.data.table import columns, schema
from dnr_jax.data.table.reader import ROW, Source, collect, locate, open_table

_KEY = "__key__"
_LOG = logging.getLogger(__name__)


def join(table: Source, own: str, given: Any, role: str) -> Source:
    """Join each row of a table with the side table's features of its user or item.

    A feature whose name lacks the prefix of its side (`u_`, `i_`) gets it. Values that the side
    table lacks are missing.

    Args:
      table: the log.
      own: its column of ids.
      given: the side table, as for `reader.open_table`.
      role: "user_id" or "item_id".

    Raises:
      FileNotFoundError, TypeError: see `open_table`.
      ValueError: the side table has no id column, a repeated or missing id, or a column that the
        log also has.
    """
    side = open_table(given)
    key = schema.find_role(role, side.types, side.place)
    prefix = f"{role[0]}_"
    names = {
        name: name if name.startswith(prefix) else f"{prefix}{name}"
        for name in side.types
        if name != key
    }
    both = sorted(set(names.values()) & set(table.types))
    if both:
        raise ValueError(
            f"{side.place} and {table.place} both have {', '.join(both)}: keep it in one of them"
        )
    _check_ids(side, key)
    described = side.frame.select(
        _as_text(key, side.types[key]).alias(_KEY),
        *(pl.col(name).alias(new) for name, new in names.items()),
    )
    frame = table.frame.with_columns(_as_text(own, table.types[own]).alias(_KEY))
    of, known = _counts(table, frame, described)
    if 2 * known < of:
        _LOG.warning(
            "%s has %d of the %d values of %s in %s; the features of the others are missing: "
            "check that both files write ids in the same way",
            *(side.place, known, of, own, table.place),
        )
    frame = frame.join(described, on=_KEY, how="left", maintain_order="left").drop(_KEY)
    types = {new: side.types[name] for name, new in names.items()}
    return Source(frame, table.types | types, table.files)


def _counts(table: Source, frame: pl.LazyFrame, described: pl.LazyFrame) -> tuple[Any, ...]:
    """Count the distinct ids of a table, and those that its side table has."""
    asked = frame.select(_KEY).drop_nulls().unique()
    both = asked.join(described.select(_KEY, known=True), on=_KEY, how="left")
    return collect(both.select(pl.len(), pl.col("known").sum()), table.files).row(0)


def _as_text(name: str, kind: pl.DataType) -> pl.Expr:
    """Read ids as text, which works for both tables whatever their types."""
    return columns.identifier(name, kind).cast(pl.String)


def _check_ids(side: Source, key: str) -> None:
    ids = side.frame.select(ROW, _as_text(key, side.types[key]).alias(key))
    bad = ids.filter(pl.col(key).is_null() | pl.col(key).is_duplicated())
    found = collect(bad.sort(ROW).head(1), side.files)
    if len(found):
        row, value = found.row(0)
        what = "missing" if value is None else f"{value!r}, which other rows have as well"
        raise ValueError(
            f"{locate(side, row)}: {key} is {what}, expected every id once: drop or correct the row"
        )
