"""A trained model as a function from an Arrow table of candidates to a ranked one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import polars as pl
import pyarrow as pa

from dnr_jax import settings
from dnr_jax.ahead import one_ahead
from dnr_jax.data.encoders import count_unknown
from dnr_jax.data.table import candidates as tables
from dnr_jax.data.table import coded_candidates as coded_
from dnr_jax.data.table.arrays import places
from dnr_jax.data.table.candidates import RANKED, Candidates
from dnr_jax.data.table.coded_candidates import GIVEN, Coded
from dnr_jax.data.table.reader import ROW
from dnr_jax.data.table.settings import TableSettings
from dnr_jax.serving.first_stage import liked
from dnr_jax.serving.model import Model, check_direct, load
from dnr_jax.serving.shapes import to_power_of_two
from dnr_jax.types import Array, Request

CELLS = 2**15  # candidates scored at once, padding included
Batch = TypeVar("Batch", pa.Table, pa.RecordBatch)


class Scored(NamedTuple):
    """Ranked candidates.

    Attributes:
      table: the columns of `RANKED`: ids as they were given, score float32 (higher is better), rank
        int32 (1 is best) and the first stage's own score, float64 or null; then those of
        `Candidates.passed`. Requests come in the order in which they first appeared, the candidates
        of each by rank.
      counts: of requests, candidates, and unknown values by column, e.g. "unknown item.item_id".
    """

    table: pa.Table
    counts: Counter[str]


class _Batch(NamedTuple):
    """Candidates that the model scores at once.

    Attributes:
      rows: their places in `Prepared.rows`, `int64 [n]`.
      where: `bool [B, N]`, their places in the model's output, in the same order.
      given: requests and scores x, padded with empty requests to a power of two.
    """

    rows: np.ndarray
    where: np.ndarray
    given: tuple[Request, Array]


class Prepared(NamedTuple):
    """Candidates in memory, ready for the model.

    Attributes:
      rows: see `Coded.rows`.
      batches: their batches.
      counts: see `Scored`.
    """

    rows: pl.DataFrame
    batches: list[_Batch]
    counts: Counter[str]


class Scorer:
    """Scores Arrow tables of candidates, each of which holds whole requests.

    Engines can call it on batches like a function: `scorer(table)`, `scorer(record_batch)`.

    Args:
      model: a trained model, or its folder.
      row: a row of a run folder; None for a model folder.
      names: how the table's columns are named, and side tables: the knobs `schema`, `columns`,
        `item_file` and `user_file` of `config.data` in a run on a log table. A model of
        interactions has the features of its users and items, and takes no side tables.

    Raises:
      FileNotFoundError: see `load`.
      ValueError: see `load`; or see `check_direct`.
    """

    def __init__(self, model: Model | str | os.PathLike[str], row: str | None = None, **names: str):
        self.model = model if isinstance(model, Model) else load(model, row)
        check_direct(self.model, "fit to score tables")
        self.names = settings.read(TableSettings, names, "names")
        if self.model.encoders.plain and (self.names.item_file or self.names.user_file):
            raise ValueError(
                f"the model was trained on {self.model.card['data']['name']}: it has the features "
                "of its users and items, and reads no others. Leave item_file and user_file out"
            )

    @property
    def at_once(self) -> int:
        """Number of requests of the usual length that the model scores at once."""
        return _most(self.model.encoders.size)

    def __call__(self, batch: Batch) -> Batch:
        """Rank the candidates of whole requests; see `Scored.table`.

        Raises:
          ValueError: a column or a value is invalid; see `read`.
        """
        candidates = self.read(pa.table(batch))
        candidates.check_values(self.model.encoders)
        table = self.score(candidates).table
        if isinstance(batch, pa.Table):
            return table
        return table.combine_chunks().to_batches()[0]

    def read(self, given: Any) -> Candidates:
        """Open a table of candidates, a path or a frame; see `data.table.candidates.read`.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: a required column is absent (including the first-stage score, for a model that
            reads it), or a column has the wrong type.
        """
        candidates = tables.read(given, self.model.encoders, self.names)
        lacking = self.model.reads_scores and not candidates.scored
        if lacking and self.model.first_stage is None:
            raise ValueError(
                f"{candidates.place} has no score, which this model reads: name its column, as in "
                "--columns score=YOURS (from Python, columns='score=YOURS')"
            )
        return candidates

    def score(self, candidates: Candidates) -> Scored:
        """Rank candidates whose values were checked; all of them are in memory at once."""
        prepared = self.prepared(candidates)
        return self.ordered(prepared, self.computed(prepared))

    def prepared(self, candidates: Candidates) -> Prepared:
        """Read checked candidates into memory, and lay them out in batches for the model."""
        coded = self.code(candidates)
        counts = Counter(requests=len(coded.requests), candidates=len(coded.rows))
        return Prepared(coded.rows, list(self._batches(coded, counts)), counts)

    def code(self, candidates: Candidates) -> Coded:
        """Read checked candidates into memory, coded by the model's encoders."""
        return coded_.code(candidates, self.model.encoders)

    def ordered(self, prepared: Prepared, scores: np.ndarray) -> Scored:
        """Rank candidates by the scores that `computed` returned for them."""
        return Scored(_ranked(prepared.rows, scores), prepared.counts)

    def in_order(self, given: Any) -> np.ndarray:
        """Score a table of candidates: `float32 [rows]` in its own order.

        Args:
          given: see `read`; all of it is in memory at once.

        Raises:
          FileNotFoundError, ValueError: see `read`, or a value is invalid.
        """
        candidates = self.read(given)
        candidates.check_values(self.model.encoders)
        prepared = self.prepared(candidates)
        scores = self.computed(prepared)
        found = np.empty_like(scores)
        found[prepared.rows[ROW].to_numpy()] = scores
        return found

    def computed(self, prepared: Prepared) -> np.ndarray:
        """Score candidates: `float32 [rows]`, in the order of `prepared.rows`."""
        model, scores = self.model, np.zeros(len(prepared.rows), np.float32)
        calls = (model.order(model.params, *batch.given) for batch in prepared.batches)
        # On a CPU two programs share the cores: the serial parts of one run beside the other.
        for batch, found in zip(prepared.batches, one_ahead(calls), strict=True):
            scores[batch.rows] = np.asarray(found)[: len(batch.where)][batch.where]
        if not np.isfinite(scores).all():
            raise FloatingPointError("the model's scores are not finite")
        return scores

    def _batches(self, coded: Coded, counts: Counter[str]) -> Iterator[_Batch]:
        """Batch requests of similar length, and count unknown values."""
        encoders, ask = self.model.encoders, None if coded.scored else self._ask()
        q, sizes = coded.rows["q"].to_numpy(), coded.requests["rows"].to_numpy()
        for chosen, size in _alike(sizes, encoders.size):
            request, x = coded_.request_arrays(coded, chosen, size, encoders, ask)
            for name, count in count_unknown(request, encoders.spec).items():
                counts[f"unknown {name}"] += count
            rows, ends = np.flatnonzero(np.isin(q, chosen)), np.cumsum(sizes[chosen])
            for first in range(0, len(chosen), _most(size)):
                part = slice(first, first + _most(size))
                own = jax.tree.map(lambda array, part=part: array[part], (request, x))
                begin, end = ends[first] - sizes[chosen[first]], ends[part][-1]
                given = jax.tree.map(to_power_of_two, own)
                yield _Batch(rows[begin:end], np.asarray(own[0].where), given)

    def _ask(self) -> coded_.FirstStage | None:
        """Return the first stage that scores a table without scores, if the model reads them."""
        stage = self.model.first_stage
        if stage is None or not self.model.reads_scores:
            return None
        return lambda user, history, candidates: stage.of(liked(user, history), candidates)


def _alike(sizes: np.ndarray, usual: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield numbers of requests, and the N that they are padded to.

    N is the usual one, or a power of two for longer lists, so few shapes are compiled.
    """
    longer = 2 ** np.ceil(np.log2(np.maximum(sizes, 1))).astype(np.int64)
    padded = np.where(sizes <= usual, usual, longer)
    for size in np.unique(padded):
        yield np.flatnonzero(padded == size), int(size)


def _most(size: int) -> int:
    """Return how many requests of `size` candidates are scored at once: a power of 2."""
    return 2 ** int(np.log2(max(1, CELLS // size)))


def _ranked(rows: pl.DataFrame, scores: np.ndarray) -> pa.Table:
    """Sort each request by score; ties keep the given order."""
    q = rows["q"].to_numpy()
    best = _best_first(q, scores)
    columns = {
        "request_id": rows[f"{GIVEN}request_id"][best],
        "item_id": rows[f"{GIVEN}item_id"][best],
        "score": pl.Series(scores[best]),
        "rank": pl.Series((1 + places(q)).astype(np.int32)),
        "retriever_score": rows[f"{GIVEN}score"][best],
    }
    for name in rows.columns:
        own = name.removeprefix(GIVEN)
        if own not in (name, *RANKED):
            columns[own] = rows[name][best]
    return pl.DataFrame(columns).to_arrow()


def _best_first(q: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Order rows by request, then by score, best first; ties keep their order.

    Equal to `np.lexsort((-scores, q))`, and seven times as fast: each row has one integer sort key,
    with the request's number above the bits of the score, flipped for negative scores.
    """
    bits = (0.0 - scores).view(np.int32)  # both zeros become the same
    ordered = np.where(bits < 0, ~bits, bits ^ np.int32(-(2**31))).view(np.uint32)
    return np.argsort((q.astype(np.uint64) << np.uint64(32)) | ordered, kind="stable")


def rank_frame(model: Model, frame: Any) -> Any:
    """Rank the candidates of a frame; return a frame of the same kind, see `Scored.table`."""
    if isinstance(frame, pa.Table | pa.RecordBatch):
        return Scorer(model)(frame)
    ranked = Scorer(model)(pa.table(frame))
    return pl.from_arrow(ranked) if isinstance(frame, pl.DataFrame) else ranked.to_pandas()
