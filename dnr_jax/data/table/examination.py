"""Check every value of a table before any long work."""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from dnr_jax.data.table import checks, columns, earlier, groups, labels, reader, sides, splits
from dnr_jax.data.table.columns import Typed
from dnr_jax.data.table.labels import Grading
from dnr_jax.data.table.naming import as_in
from dnr_jax.data.table.reader import Source, open_table
from dnr_jax.data.table.schema import Schema, find_role, understand
from dnr_jax.data.table.settings import TableSettings


class Examined(NamedTuple):
    """A table whose values were all checked.

    Attributes:
      table: the typed table.
      rows: number of its rows.
      grading: how its labels are read.
      requests: the result of `splits.assign`.
      splits: how requests were put into splits, in words.
    """

    table: Typed
    rows: int
    grading: Grading
    requests: pl.DataFrame
    splits: str


def examine(given: Any, settings: TableSettings, *, seed: int) -> Examined:
    """Check every value of a table before any long work.

    Args:
      given: a path, or a frame of polars, pandas or pyarrow.
      settings: how the table is read.
      seed: seed of the hashes that requests are split by.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the first fault found: place, value, expectation and remedy.
      TypeError: a frame of an unknown kind.
    """
    source, schema = open_known(given, settings)
    table = columns.typed(source, schema, time_unit(source, schema))
    rows = checks.check_values(table, score_as_is=settings.score == "as_is")
    grading = labels.grading(table, settings)
    gathered = groups.gather(table, grading.expression())
    requests, words = splits.assign(gathered, settings, seed=seed, place=source.place)
    return Examined(table, rows, grading, requests, words)


def open_known(given: Any, settings: TableSettings) -> tuple[Source, Schema]:
    """Open a table, identify its columns and check their types; see `examine`."""
    source = described(open_table(given), settings)
    naming, known = settings.naming, earlier.read(settings)
    if known is not None:
        naming = earlier.naming(naming, known, source)
    schema = understand(source.types, naming, source.place)
    checks.check_types(source, schema)
    if not schema.labels:
        raise ValueError(
            f"{source.place} has no label: name the column, as in {as_in('label')}; its columns "
            f"are {', '.join(source.types)}"
        )
    if settings.score in ("as_is", "sigmoid") and "score" not in schema.columns:
        raise ValueError(
            f"score is {settings.score}, but {source.place} has no column score: choose minmax"
        )
    return source, schema


def described(source: Source, settings: TableSettings) -> Source:
    """Join the side tables, if there are any."""
    for role, side in (("user_id", settings.user_file), ("item_id", settings.item_file)):
        if side:
            named = settings.naming.columns.get(role)
            own = named or find_role(role, source.types, source.place)
            source = sides.join(source, own, side, role)
    return source


def time_unit(source: Source, schema: Schema) -> str:
    """Say in words which unit the table's times are in; "" = it has none."""
    name = schema.columns.get("timestamp")
    if name is None:
        return ""
    kind, low, high = source.types[name], None, None
    if kind.is_numeric():
        value = pl.col(name).cast(pl.Float64)
        found = source.frame.select(value.min().alias("low"), value.max().alias("high"))
        low, high = reader.collect(found, source.files).row(0)
    try:
        return columns.time_unit(kind, low, high)
    except ValueError as error:
        raise ValueError(
            f"{source.place}: column {name} holds times {error}: write all of them in one unit"
        ) from None
