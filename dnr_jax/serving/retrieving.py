"""Candidates for a table of requests, found by the retriever of a model of interactions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from tqdm import tqdm

from dnr_jax import durable, settings
from dnr_jax.data.encoders import Encoders, Vocabulary
from dnr_jax.data.table import checks, columns
from dnr_jax.data.table.reader import collect, open_table
from dnr_jax.data.table.schema import understand_requests
from dnr_jax.data.table.settings import TableSettings
from dnr_jax.serving.files import check_out
from dnr_jax.serving.model import Model

AT_ONCE = 4096  # requests whose candidates are in memory


def retrieve_file(
    model: Model,
    given: Path,
    out: Path,
    *,
    size: int | None = None,
    names: str = "",
    overwrite: bool = False,
    progress: bool = False,
) -> int:
    """Write the candidates of requests as a table that `files.score_file` takes.

    Args:
      model: an interactions model with its retriever.
      given: a table as for `data.table`, one row per request: `request_id` and, if known,
        `user_id` and `history`, a list of item ids with the latest last.
      out: a Parquet file with `request_id`, `item_id`, `score`, `user_id` and `history`; the best
        candidate of a request comes first, and only its row has the history.
      size: candidates per request; None = as many as in training.
      names: columns with other names, e.g. "request_id=session".
      overwrite: whether an existing `out` is replaced, in one step at the end.
      progress: whether to show a progress bar.

    Returns:
      The number of candidates.

    Raises:
      FileNotFoundError: there is no such table.
      FileExistsError, ValueError: see `files.check_out`; the model has no retriever, a column or a
        value is invalid, or a request occurs twice. Nothing was written.
    """
    check_out(out, overwrite=overwrite)
    requests = _read(given, names, model.encoders)
    total = 0
    with (
        durable.replacing(out) as file,
        tqdm(total=len(requests), unit="request", disable=not progress) as bar,
    ):
        writer = None
        for part in requests.iter_slices(AT_ONCE):
            table = _candidates(model, part, size).to_arrow()
            writer = writer or pq.ParquetWriter(file, table.schema)
            writer.write_table(table)
            total += len(table)
            bar.update(len(part))
        if writer is not None:
            writer.close()
    return total


def _read(given: Path, names: str, encoders: Encoders) -> pl.DataFrame:
    """Read all requests: typed columns, null if one is absent."""
    source = open_table(given)
    naming = settings.read(TableSettings, {"columns": names}, "names").naming
    schema = understand_requests(source.types, naming, source.place)
    checks.check_types(source, schema)
    frame = collect(columns.typed(source, schema, "").frame, source.files)
    _refuse_ids(frame["request_id"], source.place)
    return frame.select(
        "request_id",
        _like("user_id", frame, encoders.vocabularies["user_id"]),
        _like("history", frame, encoders.vocabularies["item_id"]),
    )


def _refuse_ids(ids: pl.Series, place: str) -> None:
    fault = ""
    if not len(ids):
        fault = "no rows"
    elif ids.null_count():
        fault = "a row without request_id"
    elif (twice := ids.filter(ids.is_duplicated())).len():
        fault = f"several rows of request {twice[0]!r}"
    if fault:
        raise ValueError(f"{place} has {fault}: give each request one row and an id of its own")


def _like(role: str, frame: pl.DataFrame, words: Vocabulary) -> pl.Expr:
    """Read ids, or lists of ids, as the type they had in training; others become null."""
    kind: Any = columns.type_of(words)
    kind = pl.List(kind) if role == "history" else kind
    column = pl.col(role) if role in frame.columns else pl.lit(None)
    return column.cast(kind, strict=False).alias(role)


def _candidates(model: Model, requests: pl.DataFrame, size: int | None) -> pl.DataFrame:
    asked = [
        {"user": user, "history": history}
        for user, history in requests.select("user_id", "history").iter_rows()
    ]
    found = model.retrieve(asked, size)
    kind = columns.type_of(model.encoders.vocabularies["item_id"])
    lists = requests.with_columns(
        pl.Series("item_id", [raw["items"] for raw in found], pl.List(kind)),
        pl.Series("score", [raw["scores"] for raw in found], pl.List(pl.Float32)),
    )
    rows = lists.explode("item_id", "score").drop_nulls("item_id")  # a request without candidates
    first = pl.col("request_id").is_first_distinct()
    history = pl.when(first).then("history")
    return rows.select("request_id", "item_id", "score", "user_id", history)
