"""Rank the candidates of a file, part by part, into a file that is complete or absent."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from dnr_jax import durable, json_files
from dnr_jax.ahead import one_ahead
from dnr_jax.data.folders import alone
from dnr_jax.data.table.reader import ROW, find_files
from dnr_jax.serving.batches import Prepared, Scored, Scorer

ROWS = 2**17  # of a part, roughly: a part ends where a request ends
SUFFIXES = (".parquet", ".pq")
_PLAN, _WHOLE = "plan.json", "whole.parquet"
_COUNTS = b"dnr_jax"
_DISTINCT = ("score", "retriever_score")  # in the other columns a dictionary saves bytes
_LOG = logging.getLogger(__name__)


class Summary(NamedTuple):
    """What was scored.

    Attributes:
      out: the file.
      counts: see `batches.Scored`.
      missing: optional columns that the model reads and the table lacks.
      resumed: number of rows that an earlier, interrupted call had scored.
    """

    out: Path
    counts: Counter[str]
    missing: tuple[str, ...]
    resumed: int


def check_out(out: Path, *, overwrite: bool, inputs: Iterable[str | Path] = ()) -> None:
    """Refuse an output name that cannot be used, before any work.

    Args:
      out: the name.
      overwrite: whether an existing file may be replaced.
      inputs: files and folders that are read, and must not be replaced.

    Raises:
      ValueError: it does not end like a Parquet file, or is one of the inputs.
      FileExistsError: it exists and may not be overwritten.
    """
    if not out.name.endswith(SUFFIXES):
        raise ValueError(f"{out} must be a Parquet file: choose a name that ends in .parquet")
    for given in inputs:
        _check_other(out, Path(given).expanduser())
    if out.is_dir() or (out.exists() and not overwrite):
        raise FileExistsError(f"{out} exists already: choose another name, or --overwrite")


def _check_other(out: Path, given: Path) -> None:
    """Refuse an output that is the file `given`, or one of the files of that folder."""
    if not (out.exists() and given.exists()):
        return
    for file in find_files(given)[1]:
        if os.path.samefile(out, file):
            raise ValueError(
                f"{out} is the same file as the input {file}, which the output would replace: "
                "choose another name for the output"
            )


def score_file(
    scorer: Scorer,
    given: Path,
    out: Path,
    *,
    rows: int = ROWS,
    overwrite: bool = False,
    progress: bool = False,
) -> Summary:
    """Rank the candidates of a table on disk.

    Three parts are in memory (one read, one scored, one written), and a few numbers per request.
    An interrupted call leaves finished parts in a hidden folder beside `out`; the same call
    resumes from there.

    Args:
      scorer: the model's scorer.
      given: a file or folder as for `data.table`, with the rows of each request adjacent.
      out: a Parquet file with the columns of `batches.Scored`.
      rows: rows per part, roughly.
      overwrite: whether an existing `out` is replaced, in one step at the end.
      progress: whether to show a progress bar.

    Raises:
      FileNotFoundError, ValueError: see `Scorer.read` and `check_out`; a value is invalid, or the
        rows of a request are not adjacent. Nothing was written.
      FileExistsError: see `check_out`.
    """
    sides = [side for side in (scorer.names.item_file, scorer.names.user_file) if side]
    check_out(out, overwrite=overwrite, inputs=[given, *sides])
    candidates = scorer.read(given)
    candidates.check_values(scorer.model.encoders)
    spans = _spans(candidates, rows, scorer.at_once)
    parts = out.with_name(f".{out.name}.parts")
    with alone(out):
        _settle(parts, _plan(scorer, candidates, spans))
        made = {part: _counts(parts / part.name, part.rows) for part in _parts(spans)}
        resumed = sum(part.rows for part, found in made.items() if found is not None)
        counts = Counter[str]()
        try:
            with tqdm(total=spans[-1], initial=resumed, unit="row", disable=not progress) as bar:
                for part, found in _score(scorer, candidates, made, parts):
                    counts += found
                    bar.update(part.rows if made[part] is None else 0)
        except (ValueError, FloatingPointError):  # a fault of the table: no later call can resume
            durable.remove(parts)
            raise
        durable.publish(parts / _WHOLE, out)
        durable.remove(parts)
    return Summary(out, counts, candidates.missing, resumed)


class _Part(NamedTuple):
    """Rows of the table that are scored together, and the name of the file they go to."""

    name: str
    first: int
    rows: int


def _parts(spans: list[int]) -> list[_Part]:
    return [
        _Part(f"part-{number:05d}.arrow", first, last - first)
        for number, (first, last) in enumerate(pairwise(spans))
    ]


def _spans(candidates: Any, rows: int, at_once: int) -> list[int]:
    """Cut the table where requests end: the first row of each part, and the number of rows.

    A part of many requests holds a multiple of the model's batch, because a smaller last batch
    would be padded. The first part holds one batch, so the model has work soon.
    """
    row = pl.col("row")
    table = candidates.table.frame.select("request_id", row=pl.col(ROW).cast(pl.Int64))
    groups = table.group_by("request_id").agg(row.min().alias("first"), row.max(), pl.len())
    ends = groups.collect(engine="streaming").sort("first")
    apart = ends.filter(pl.col("row") - pl.col("first") + 1 != pl.col("len"))
    if len(apart):
        raise ValueError(
            f"{candidates.place}: the rows of request {apart['request_id'][0]!r} are not next to "
            f"each other ({len(apart)} such request{'s' * (len(apart) > 1)}): sort the table by "
            "request, so it can be read in parts"
        )
    starts, total = ends["first"].to_numpy(), int(ends["len"].sum())
    usual = rows * len(starts) // total  # requests of so many rows
    if usual >= at_once:
        later = starts[at_once :: usual // at_once * at_once]
        return [0, *later.tolist(), total]
    chosen = np.unique(np.searchsorted(starts, np.arange(0, total, rows)))
    return [*starts[chosen[chosen < len(starts)]].tolist(), total]


def _plan(scorer: Scorer, candidates: Any, spans: list[int]) -> dict[str, Any]:
    """Describe everything that the parts depend on, so different runs are never mixed."""
    card = scorer.model.card
    schema, names = candidates.table.schema, scorer.names
    sides = [Path(side).expanduser() for side in (names.item_file, names.user_file) if side]
    about = [(path, path.stat()) for path in (*candidates.table.source.files, *sides)]
    return json_files.plain(
        {
            "model": [card["parameters_sha256"], card["encoders_sha256"], card["reranker"]],
            "files": [[path, found.st_size, found.st_mtime_ns] for path, found in about],
            "columns": dict(schema.columns),
            "features": [list(feature) for feature in schema.features],
            "passed": candidates.passed,
            "spans": spans,
        }
    )


def _settle(parts: Path, plan: dict[str, Any]) -> None:
    """Keep the finished parts of an identical earlier call, and remove any others."""
    try:
        same = json_files.read(parts / _PLAN) == plan
    except (OSError, json_files.DamagedError):
        same = False
    if same:
        durable.sweep(parts)
        return
    if parts.exists():
        _LOG.info("%s belongs to another model or table: its parts are rebuilt", parts)
    durable.remove(parts)
    json_files.write(parts / _PLAN, plan)


def _counts(path: Path, rows: int) -> Counter[str] | None:
    """Return the counts of a finished part; None if there is none with this many rows."""
    try:
        table = _kept(path)
        counts = json.loads(table.schema.metadata[_COUNTS])
    except (OSError, KeyError, TypeError, ValueError):  # pa.ArrowInvalid is a ValueError
        return None
    return Counter(counts) if table.num_rows == rows else None


def _kept(path: Path) -> pa.Table:
    """Open a part that `_keep` wrote; nothing is copied."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _score(
    scorer: Scorer, candidates: Any, made: dict[_Part, Counter[str] | None], folder: Path
) -> Iterator[tuple[_Part, Counter[str]]]:
    """Score the missing parts, and join all parts into one file in the folder.

    Meanwhile a second thread reads the next part and writes the previous one.
    """
    left = [part for part, counts in made.items() if counts is None]
    source = candidates.parts([(part.first, part.rows) for part in left])
    # If it is interrupted, the second thread ends its work before the file is closed.
    with _Whole(folder / _WHOLE) as whole, ThreadPoolExecutor(1, "parts") as pool:

        def write(part: _Part, prepared: Prepared, scores: np.ndarray) -> None:
            ranked = scorer.ordered(prepared, scores)
            _keep(ranked, folder / part.name)
            whole.add(ranked.table)

        def copy(part: _Part) -> None:
            whole.add(_kept(folder / part.name))

        reading = one_ahead(pool.submit(_prepared, scorer, source) for _ in left)
        writing: Future[None] | None = None
        for part, counts in made.items():
            job: tuple[Any, ...] = (copy, part)
            if counts is None:
                prepared = next(reading).result()
                counts, job = prepared.counts, (write, part, prepared, scorer.computed(prepared))
            if writing is not None:
                writing.result()
            writing = pool.submit(*job)
            yield part, counts
        if writing is not None:
            writing.result()


def _prepared(scorer: Scorer, source: Iterator[Any]) -> Prepared:
    return scorer.prepared(next(source))


def _keep(ranked: Scored, path: Path) -> None:
    """Write a part in Arrow's own format, which takes almost no time."""
    marked = ranked.table.replace_schema_metadata({_COUNTS: json.dumps(ranked.counts)})
    with durable.replacing(path) as file, pa.ipc.new_file(file, marked.schema) as part:
        part.write_table(marked)


class _Whole:
    """The file of all parts: one row group per part, in the order in which they are added."""

    def __init__(self, path: Path):
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _Whole:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, part: pa.Table) -> None:
        """Write the rows of a part."""
        plain = part.replace_schema_metadata(None)
        if self._writer is None:
            repeated = [name for name in plain.schema.names if name not in _DISTINCT]
            own: dict[str, Any] = {"use_dictionary": repeated}
            self._writer = pq.ParquetWriter(self._path, plain.schema, **own)
        self._writer.write_table(plain)
