"""Candidates for a table of requests, found by the retriever of a model of interactions."""

from __future__ import annotations

import difflib
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import polars as pl
import pyarrow.parquet as pq
from tqdm import tqdm

from dnr_jax import durable, settings
from dnr_jax.data.encoders import UNKNOWN, Encoders, Vocabulary
from dnr_jax.data.raw_values import looked_up
from dnr_jax.data.table import checks, columns
from dnr_jax.data.table.reader import ROW, Source, collect, open_table
from dnr_jax.data.table.schema import REQUEST, Schema, understand_requests
from dnr_jax.data.table.settings import TableSettings
from dnr_jax.serving.files import check_out
from dnr_jax.serving.model import Model

AT_ONCE = 4096  # requests whose candidates are in memory
_NAMED = 5  # requests without candidates that are named
_WHOSE = {"user_id": "this model's users", "history": "this model's items"}
_CURES = {
    "request_id": "give each request an id of its own",
    "user_id": "write ids as in training, or null where the user is unknown",
    "history": "write ids as in training, or leave those items out",
}


class Summary(NamedTuple):
    """What was retrieved.

    Attributes:
      out: the file.
      counts: of requests, candidates, requests without candidates ("empty"), history items, and
        unknown values as in `batches.Scored`, e.g. "unknown history.item_id".
      empty: ids of the first requests that have no candidate left.
      missing: columns that the model reads and the table lacks.
      unread: columns of the table that are not read, and the missing column of a similar name, or
        None.
    """

    out: Path
    counts: Counter[str]
    empty: tuple[Any, ...]
    missing: tuple[str, ...]
    unread: dict[str, str | None]


def retrieve_file(
    model: Model,
    given: Path,
    out: Path,
    *,
    size: int | None = None,
    names: str = "",
    overwrite: bool = False,
    progress: bool = False,
) -> Summary:
    """Write the candidates of requests as a table that `files.score_file` takes.

    Args:
      model: an interactions model with its retriever.
      given: a table as for `data.table`, one row per request: `request_id` and, if known,
        `user_id` and `history`, a list of item ids with the latest last.
      out: a Parquet file with `request_id`, `item_id`, `score`, `user_id` and `history`; the best
        candidate of a request comes first, and only its row has the history. A request whose
        history holds all items has no row.
      size: candidates per request; None = as many as in training.
      names: columns with other names, e.g. "request_id=session".
      overwrite: whether an existing `out` is replaced, in one step at the end.
      progress: whether to show a progress bar.

    Raises:
      FileNotFoundError: there is no such table.
      FileExistsError, ValueError: see `files.check_out`; the model has no retriever, a column or a
        value is invalid, an id is not of the model's type, a request occurs twice, or no request
        has a candidate. Nothing was written.
    """
    check_out(out, overwrite=overwrite, inputs=[given])
    _check_retriever(model)
    schema, requests = _read(given, names, model.encoders)
    done = _summary(out, schema, model.encoders)
    with (
        durable.replacing(out) as file,
        tqdm(total=len(requests), unit="request", disable=not progress) as bar,
    ):
        done = _write(model, requests, size, file, done, bar)
        if not done.counts["candidates"]:
            raise ValueError(
                f"{given}: no request has a candidate left, because the history of each holds all "
                "items that the retriever returns: give shorter histories"
            )
    return done


def _check_retriever(model: Model) -> None:
    if model.first_stage is None:
        raise ValueError(
            f"the model was trained on {model.card['data']['name']} and keeps no retriever: only a "
            "model of interactions keeps one, as dnr-jax train LOGS --data interactions makes it, "
            "and not if its scores came from a file. Find candidates by other means, and rank them "
            "by dnr-jax score"
        )


def _summary(out: Path, schema: Schema, encoders: Encoders) -> Summary:
    """Begin a summary with what the table's columns tell."""
    missing = [role for role in REQUEST if role not in schema.columns]
    if not len(encoders.vocabularies["user_id"].keys):  # there were no users in training
        missing = [role for role in missing if role != "user_id"]
    near = {
        name: next(iter(difflib.get_close_matches(name.lower(), missing, n=1)), None)
        for name in schema.ignored
    }
    return Summary(out, Counter(), (), tuple(missing), near)


def _write(
    model: Model, requests: pl.DataFrame, size: int | None, file: BinaryIO, done: Summary, bar: Any
) -> Summary:
    """Write the candidates of all requests, a part at a time, and count."""
    writer = None
    for part in requests.iter_slices(AT_ONCE):
        found = _candidates(model, part, size)
        table = found.to_arrow()
        writer = writer or pq.ParquetWriter(file, table.schema)
        writer.write_table(table)
        done = _counted(done, part, found, model.encoders)
        bar.update(len(part))
    if writer is not None:
        writer.close()
    return done


def _counted(
    done: Summary, requests: pl.DataFrame, found: pl.DataFrame, encoders: Encoders
) -> Summary:
    """Add a part to the counts."""
    users, items = (encoders.vocabularies[name].keys for name in ("user_id", "item_id"))
    past, served = requests["history"], set(found["request_id"])
    met = past.filter(past.list.len() > 0).explode()
    empty = [one for one in requests["request_id"] if one not in served]
    counts = {
        "requests": len(requests),
        "candidates": len(found),
        "empty": len(empty),
        "events": len(met),
        "unknown user.user_id": _unknown(users, requests["user_id"]),
        "unknown history.item_id": _unknown(items, met),
    }
    return done._replace(counts=done.counts + Counter(counts), empty=(*done.empty, *empty)[:_NAMED])


def _unknown(keys: Any, values: pl.Series) -> int:
    return int((looked_up(keys, values.to_list()) == UNKNOWN).sum())


def _read(given: Path, names: str, encoders: Encoders) -> tuple[Schema, pl.DataFrame]:
    """Read all requests: typed columns, null if one is absent."""
    source = open_table(given)
    naming = settings.read(TableSettings, {"columns": names}, "names").naming
    schema = understand_requests(source.types, naming, source.place)
    checks.check_types(source, schema)
    held = collect(source.frame.select(ROW, *schema.used), source.files)
    frame = columns.typed(source._replace(frame=held.lazy()), schema, "").frame.collect()
    words = encoders.vocabularies
    requests = frame.select(
        "request_id",
        _like("user_id", frame, words["user_id"]),
        _like("history", frame, words["item_id"]),
    )
    _check_kinds(source, schema, held, frame, requests)
    _refuse_ids(frame["request_id"], source.place)
    return schema, requests


def _check_kinds(
    source: Source, schema: Schema, held: pl.DataFrame, frame: pl.DataFrame, read: pl.DataFrame
) -> None:
    """Refuse ids that were given and could not be read."""
    for role, name in schema.columns.items():
        values, ids = held[name], read[role]
        if role == "history":
            values, ids = frame[role].explode(), ids.explode()
        lost = values.filter(values.is_not_null() & ids.is_null())
        if len(lost):
            raise ValueError(
                f"{source.place}: column {name} holds {checks.shown(lost[0])}, but "
                f"{_expected(role, ids)} ({len(lost)} such value{'s' * (len(lost) > 1)}): "
                f"{_CURES[role]}"
            )


def _expected(role: str, ids: pl.Series) -> str:
    if role not in _WHOSE:
        return "ids are integers or text"
    return f"{_WHOSE[role]} are {'text' if ids.dtype == pl.String else 'integers'}"


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
