"""The requests of a table, one row each, and a check that the rows of each agree."""

from __future__ import annotations

import polars as pl

from dnr_jax.data.table.checks import shown
from dnr_jax.data.table.columns import Typed
from dnr_jax.data.table.labels import POSITIVE
from dnr_jax.data.table.naming import as_in
from dnr_jax.data.table.reader import ROW, collect, locate

# What must be the same in all rows of a request.
ONE = ("user_id", "split")


def gather(table: Typed, z: pl.Expr) -> pl.DataFrame:
    """Reduce the table to its requests, oldest first, and check that their rows agree.

    Args:
      table: a table with checked values.
      z: the feedback.

    Returns:
      `q` (uint32, its number), `request_id`, `request_number` (int64: the id itself, or for text
      the place of the id among all of them, from 1), `rows`, `judged` and `positives`; `user_id`,
      `timestamp` (the earliest of its rows), `later` (a row has a later one), `split`, `history`,
      `history_time` and the features of user and context, if the table has them.

    Raises:
      ValueError: a request has an item twice, two items at one position, two users or two splits,
        or its rows have different features; or no request has two candidates.
    """
    names = table.frame.collect_schema().names()
    same = [name for name in (*ONE, *_constant(table)) if name in names]
    first = [name for name in (*same, *_lists(table), "history", "history_time") if name in names]
    wanted = [
        pl.len().alias("rows"),
        z.count().alias("judged"),
        (z > POSITIVE).sum().alias("positives"),
        pl.col("item_id").n_unique().alias("distinct"),
        *(pl.col(name).drop_nulls().first() for name in first),
        *((pl.col(name).min() != pl.col(name).max()).alias(f"differ {name}") for name in same),
    ]
    if "position" in names:
        place = pl.col("position").drop_nulls()
        wanted.append((place.n_unique() < place.len()).alias("same position"))
    if "timestamp" in names:
        time = pl.col("timestamp")
        wanted += [time.min(), (time.min() < time.max()).alias("later")]
    groups = table.frame.group_by("request_id").agg(wanted)
    order = ["timestamp", "request_id"] if "timestamp" in names else ["request_id"]
    requests = collect(groups, table.source.files).sort(order).with_row_index("q")
    raw = pl.col("request_id")
    number = raw if requests["request_id"].dtype == pl.Int64 else raw.rank("ordinal").cast(pl.Int64)
    requests = requests.with_columns(request_number=number)
    _check(table, requests, same)
    return requests.drop([c for c in requests.columns if c.startswith(("differ ", "same "))])


def _constant(table: Typed) -> list[str]:
    """List the features with a single value per request."""
    sides = ("user", "context")
    return [f.name for side in sides for f in table.schema.of(side, "id", "numeric")]


def _lists(table: Typed) -> list[str]:
    return [f.name for side in ("user", "context") for f in table.schema.of(side, "bag", "vector")]


def _check(table: Typed, requests: pl.DataFrame, same: list[str]) -> None:
    twice = requests.filter(pl.col("distinct") < pl.col("rows"))
    if len(twice):
        raise _disagree(table, twice, "item_id", "an item once in a request", repeated=True)
    if "same position" in requests.columns:
        crowded = requests.filter(pl.col("same position").fill_null(False))
        if len(crowded):
            raise _disagree(table, crowded, "position", "one item at a position", repeated=True)
    for name in same:
        differing = requests.filter(pl.col(f"differ {name}").fill_null(False))
        if len(differing):
            raise _disagree(table, differing, name, "one value in all rows of a request")
    if requests["rows"].max() == 1:
        raise ValueError(
            f"{table.source.place}: no request has two candidates, so there is nothing to "
            f"rank: if its id is another column, name it, as in {as_in('request_id')}"
        )


def _disagree(
    table: Typed, requests: pl.DataFrame, name: str, expected: str, *, repeated: bool = False
) -> ValueError:
    """Name the first request of `requests` and the two of its rows that disagree."""
    request, count = requests["request_id"][0], len(requests)
    rows = table.frame.filter(pl.col("request_id") == request).select(ROW, name).sort(ROW)
    found = collect(rows, table.source.files).drop_nulls()
    clash = (
        found.filter(pl.col(name).is_duplicated())
        if repeated
        else found.unique(name, keep="first", maintain_order=True)
    )
    if repeated:
        clash = clash.filter(pl.col(name) == clash[name][0])
    places = [locate(table.source, row) for row in clash[ROW][:2]]
    values = " and ".join(shown(value) for value in dict.fromkeys(clash[name][:2]))
    own = table.schema.columns.get(name, name)
    return ValueError(
        f"{places[0]} and {places[1]}: request {shown(request)} has {own} {values}, expected "
        f"{expected} ({count} such request{'s' * (count > 1)}). Drop or correct these rows, or "
        "give each request an id of its own"
    )
