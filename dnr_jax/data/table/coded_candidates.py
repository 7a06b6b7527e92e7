"""Candidates to be scored, coded with the encoders of a trained model and laid out as arrays."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl

from dnr_jax.data import direct
from dnr_jax.data.encoders import Encoders
from dnr_jax.data.protocols import scale
from dnr_jax.data.table import arrays, coding, history, scales
from dnr_jax.data.table.candidates import LISTS, Candidates
from dnr_jax.data.table.columns import Typed, type_of
from dnr_jax.data.table.history import Past
from dnr_jax.data.table.reader import ROW, collect
from dnr_jax.data.table.schema import REQUIRED, Feature, features_of
from dnr_jax.types import Request

GIVEN = "given "
_FIRST = ("user_id", "timestamp", *LISTS)


class FirstStage(Protocol):
    """Raw scores `[B, N]` of candidates, from the codes of users, histories and candidates."""

    def __call__(self, user: Any, history: Any, candidates: Any, /) -> np.ndarray: ...


class Coded(NamedTuple):
    """Candidates in memory as feature ids, scaled numbers and raw scores.

    Attributes:
      rows: one row per candidate, those of a request together: `ROW`, `q` (number of the request),
        `code`, `score` (float64; 0 = there is none), the features of items, and the table's own
        values as `given request_id`, `given item_id`, `given score` (float64 or null) and
        `given NAME` for each of `Candidates.passed`.
      requests: one row per request: `q`, `rows` (its candidates), `user_id` and the features of
        user and context.
      past: each request's history.
      scored: whether the table has first-stage scores.
    """

    rows: pl.DataFrame
    requests: pl.DataFrame
    past: Past
    scored: bool

    def of(self, chosen: np.ndarray) -> pl.DataFrame:
        """Return the rows of some requests, given by their numbers, ascending."""
        ends = self.requests["rows"].cum_sum()
        first, last = int(chosen[0]), int(chosen[-1])
        near = self.rows[ends[first] - self.requests["rows"][first] : ends[last]]
        if last - first + 1 == len(chosen):
            return near
        return near.filter(pl.col("q").is_in(chosen))


def code(candidates: Candidates, encoders: Encoders) -> Coded:
    """Code all candidates of a table; requests are numbered as they first appear."""
    features = features_of(encoders)
    frame = _with_given(candidates.table, candidates.passed)
    _check_vectors(frame, encoders, candidates.place)
    frame = frame.with_columns(_absent(frame, features))
    sides = [f for f in features if f.side != "item"]
    first = [name for name in (*_FIRST, *(f.name for f in sides)) if name in frame.columns]
    requests = _requests(frame, first)
    past = history.none(requests)
    if "history" in requests.columns:
        past = history.given(requests, _items(encoders))
    flat = frame[[name for name in frame.columns if name not in first]].rechunk()
    rows = _numbered(flat, requests)
    score = coding.score(set(frame.columns)).alias("score")
    rows = rows.with_columns(score, pl.col("item_id").alias("code"))
    items = [f for f in features if f.side == "item"]
    requests = requests.drop(LISTS, strict=False)  # `past` has them
    return Coded(
        _sorted(_coded(rows, items, encoders, "code", "item_id"), "q", ROW),
        _sorted(_coded(requests, sides, encoders, "user_id", "user_id"), "q"),
        past,
        candidates.scored,
    )


def _requests(frame: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Number the requests as they appear; take the first non-null value of each column.

    Only row numbers are grouped: most rows repeat their request's lists, which are slow to copy.
    """
    row = pl.int_range(pl.len(), dtype=pl.UInt32)
    there = [pl.when(pl.col(name).is_not_null()).then(row).alias(name) for name in names]
    place = frame.select("request_id", *there)
    least = [pl.col(name).min() for name in names]
    found = place.group_by("request_id", maintain_order=True).agg(pl.len().alias("rows"), *least)
    values = [frame[name].gather(found[name]) for name in names]
    return found.with_columns(values).with_row_index("q")


def _numbered(rows: pl.DataFrame, requests: pl.DataFrame) -> pl.DataFrame:
    """Give each row the number `q` of its request."""
    run = rows["request_id"].rle_id()
    if run.max() == len(requests) - 1:  # each request's rows are adjacent
        return rows.with_columns(q=run)
    numbers = requests.select("request_id", "q")
    return rows.join(numbers, "request_id", how="left", maintain_order="left")


def _with_given(table: Typed, passed: tuple[str, ...]) -> pl.DataFrame:
    """Read the typed rows in table order, with the table's own values beside them."""
    named, source = table.schema.columns, table.source
    of = {role: named[role] for role in REQUIRED} | {name: name for name in passed}
    own = source.frame.select(ROW, *(pl.col(name).alias(GIVEN + new) for new, name in of.items()))
    frame = _sorted(collect(table.frame, source.files), ROW)
    score = pl.col("score") if "score" in frame.columns else pl.lit(None, pl.Float64)
    given = _sorted(collect(own, source.files), ROW).drop(ROW)
    return frame.with_columns(score.alias(f"{GIVEN}score")).hstack(given)


def _sorted(frame: pl.DataFrame, *names: str) -> pl.DataFrame:
    """Sort a frame unless it is sorted, as it nearly always is: lists and text are slow to copy."""
    sorted_ = all(frame[name].is_sorted() for name in names)  # by each, and so by all in turn
    return frame if sorted_ else frame.sort(names)


def _check_vectors(frame: pl.DataFrame, encoders: Encoders, place: str) -> None:
    known = {**encoders.transforms["numbers"], **encoders.transforms["item_numbers"]}
    for name, one in scales.read(known).items():
        if one.mean and name in frame.columns:
            lengths = set(frame[name].list.len().drop_nulls().unique()) - {len(one.mean)}
            if lengths:
                raise ValueError(
                    f"{place}: column {name} has lists of {min(lengths)} numbers: the model was "
                    f"trained on lists of {len(one.mean)}"
                )


def _absent(frame: pl.DataFrame, features: tuple[Feature, ...]) -> list[pl.Expr]:
    """Fill in columns that the table lacks, with all values missing."""
    kinds = {
        "id": pl.Int64(),
        "bag": pl.List(pl.Int64),
        "numeric": pl.Float64(),
        "vector": pl.List(pl.Float32),
    }
    wanted = {"user_id": kinds["id"], **{f.name: kinds[f.kind] for f in features}}
    return [
        pl.lit(None, dtype).alias(name)
        for name, dtype in wanted.items()
        if name not in frame.columns
    ]


def _items(encoders: Encoders) -> pl.DataFrame:
    """List the known items: `item_id` and `code`."""
    words = encoders.vocabularies["item_id"]
    return pl.DataFrame({"item_id": words.keys, "code": words.encode(words.keys)})


def _coded(
    frame: pl.DataFrame,
    features: list[Feature],
    encoders: Encoders,
    column: str,
    words: str,
) -> pl.DataFrame:
    """Code an id column with the vocabulary `words`, and all features of one side."""
    lazy = _code(frame.lazy(), Feature(column, "", "id"), encoders, words)
    transforms = encoders.transforms
    known = scales.read({**transforms["numbers"], **transforms["item_numbers"]})
    for feature in features:
        if feature.kind in ("id", "bag"):
            lazy = _code(lazy, feature, encoders, feature.name)
    own = {f.name: known[f.name] for f in features if f.kind == "numeric"}
    return lazy.with_columns(scales.scaled(own)).collect()


def _code(frame: pl.LazyFrame, feature: Feature, encoders: Encoders, words: str) -> pl.LazyFrame:
    vocabulary, column = encoders.vocabularies[words], pl.col(feature.name)
    if feature.kind == "bag":
        return coding.code(frame, feature, vocabulary)
    if not vocabulary.buckets:
        return frame.with_columns(coding.ids(column, vocabulary))
    typed = column.cast(type_of(vocabulary), strict=False)
    return coding.code(frame.with_columns(typed), feature, vocabulary)


def request_arrays(
    coded: Coded,
    chosen: np.ndarray,
    size: int,
    encoders: Encoders,
    first_stage: FirstStage | None = None,
) -> tuple[Request, np.ndarray]:
    """Make the arrays of some requests.

    Args:
      coded: the result of `code`.
      chosen: numbers of the requests, ascending.
      size: maximum number of candidates N.
      encoders: those of the model.
      first_stage: scores candidates if the table has no scores.

    Returns:
      The requests and the scores x `float32 [B, N]`; candidates have the order of `coded.rows`.
    """
    transforms = encoders.transforms
    user, context, item = (transforms["widths"][side] for side in ("user", "context", "item"))
    requests, rows = coded.requests[chosen], coded.of(chosen)
    place = np.searchsorted(chosen, rows["q"].to_numpy())
    fill = arrays.Scatter(rows.with_columns(q=place), 0, len(chosen), size)
    past = coded.past._replace(start=coded.past.start[chosen], end=coded.past.end[chosen])
    items, real = past.latest(slice(0, len(chosen)), encoders.history)
    where = fill(np.ones(len(rows), bool), False)
    numbers = scales.stack(rows, scales.read(transforms["item_numbers"]))
    content: dict[str, Any] = {
        "index": np.zeros(len(chosen), np.uint32),  # draws do not depend on the other requests
        "user": arrays.ids(requests, {"user_id": 1, **user}),
        "context": arrays.ids(requests, context),
        "history": items[..., None],
        "history_where": real,
        "candidates": fill(arrays.ids(rows, {"code": 1, **item}), 0),
        "where": where,
        "numbers": scales.stack(requests, scales.read(transforms["numbers"])),
        "item_numbers": None if numbers is None else fill(numbers, 0),
    }
    raw = fill(rows["score"].to_numpy().astype(np.float64), 0.0)
    if first_stage is not None:
        ids = (content[name][..., 0] for name in ("user", "history", "candidates"))
        raw = np.asarray(first_stage(*ids), np.float64)
    if encoders.plain:  # a table's history holds only liked items
        content |= direct.described(content, encoders.tables, np.ones(real.sum(), bool))
    x = scale(raw, where, transforms["score"]) if transforms["score"] else np.zeros(where.shape)
    return Request(**content), x.astype(np.float32)
