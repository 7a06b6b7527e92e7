"""From coded rows to the arrays of a split, a bounded chunk of requests at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from dnr_jax.data.encoders import UNKNOWN
from dnr_jax.data.hashing import mix
from dnr_jax.data.protocols import scale
from dnr_jax.data.settings import Shape
from dnr_jax.data.store import Split
from dnr_jax.data.table import scales
from dnr_jax.data.table.history import Past
from dnr_jax.data.table.labels import POSITIVE
from dnr_jax.data.table.scales import Scales
from dnr_jax.types import Batch, Request

CHUNK = 4096  # requests
# Streams of the draws: which of equal scores is cut, and the order of the candidates.
CUT, PLACE = 1, 2


class Rows(NamedTuple):
    """The candidates of all requests, coded.

    Attributes:
      frame: `q` uint32, `v` uint32 (number of the item), `code` int32, `score` float64, `z`
        float32 (0 where unjudged), `weight` float32, `exposed` bool, `position` uint32 (0 = not
        shown or not known), and the item features in use: int32, lists of int32.
      order: `int64 [M]`, rows by (q, v).
      starts: `int64 [R + 1]`, where each request begins in `order`.
    """

    frame: pl.DataFrame
    order: np.ndarray
    starts: np.ndarray


Widths = Mapping[str, int]


class Recipe(NamedTuple):
    """How rows become arrays.

    Attributes:
      shape: N and K; N is at most the length of the longest list.
      history: number of events T.
      score: transform of scores; "" = there are none, and x is 0.
      user, context, item: features of ids of each side, and how many columns each takes: 1, or
        for a bag the maximum number of values kept.
      numbers, item_numbers: scales of the numeric and vector features of user and context, and of
        items.
      seed: seed of the draws.
    """

    shape: Shape
    history: int
    score: str
    user: Widths
    context: Widths
    item: Widths
    numbers: Scales
    item_numbers: Scales
    seed: int


def order_rows(frame: pl.DataFrame, requests: int) -> Rows:
    """Find the order of rows by request and item number; the rows themselves are not moved."""
    q, v = frame["q"].to_numpy(), frame["v"].to_numpy()
    order = np.argsort(q.astype(np.uint64) << np.uint64(32) | v)
    starts = np.concatenate([[0], np.cumsum(np.bincount(q, minlength=requests))])
    return Rows(frame, order, starts)


def chunks(
    rows: Rows, requests: pl.DataFrame, past: Past, recipe: Recipe
) -> Iterator[tuple[Split, np.ndarray]]:
    """Yield the arrays of all requests, in order, and the split of each; `index` stays 0."""
    count, split = len(requests), requests["split"].to_numpy()
    for first, last in pairwise([*range(0, count, CHUNK), count]):
        own = rows.frame[rows.order[rows.starts[first] : rows.starts[last]]]
        chunk = _chunk(own, requests[first:last], past, slice(first, last), recipe)
        yield chunk, split[first:last]


def _chunk(
    frame: pl.DataFrame, requests: pl.DataFrame, past: Past, rows: slice, recipe: Recipe
) -> Split:
    frame = _cut(frame, recipe)
    frame = _shuffle(frame, recipe.seed)
    fill = Scatter(frame, rows.start, len(requests), recipe.shape.size)
    items, real = past.latest(rows, recipe.history)
    numbers = scales.stack(frame, recipe.item_numbers)
    where = fill(np.ones(len(frame), bool), False)
    arrays: dict[str, Any] = {
        "index": np.zeros(len(requests), np.uint32),
        "user": ids(requests, {"user_id": 1, **recipe.user}),
        "context": ids(requests, recipe.context),
        "history": items[..., None],
        "history_where": real,
        "candidates": fill(ids(frame, {"code": 1, **recipe.item}), 0),
        "where": where,
        "numbers": scales.stack(requests, recipe.numbers),
        "item_numbers": None if numbers is None else fill(numbers, 0),
    }
    feedback: dict[str, Any] = {
        "scores": scale(fill(frame["score"].to_numpy(), 0.0), where, recipe.score),
        "labels": fill(frame["z"].to_numpy(), 0),
        "exposed": fill(frame["exposed"].to_numpy(), False),
        "slate": _slate(frame, rows.start, len(requests), recipe.shape.slate),
        "weights": fill(frame["weight"].to_numpy(), 0),
    }
    truth = np.full(where.shape, np.nan, np.float32)
    raw = requests["request_number"]
    positives = requests["positives"].to_numpy().astype(np.int32)
    batch = Batch(request=Request(**arrays), **feedback)
    return Split(batch, raw.to_numpy().astype(np.int64), positives, truth)


def _cut(frame: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """Keep the N candidates of each request that the first stage ranks highest."""
    q, v = frame["q"].to_numpy(), frame["v"].to_numpy()
    order = np.lexsort((mix(recipe.seed, CUT, q, v), -frame["score"].to_numpy(), q))
    return frame[order[places(q[order]) < recipe.shape.size]]


def _shuffle(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Put the candidates of each request in a random order that depends only on them."""
    q, v = frame["q"].to_numpy(), frame["v"].to_numpy()
    return frame[np.lexsort((mix(seed, PLACE, q, v), q))]


def places(q: np.ndarray) -> np.ndarray:
    """Number the rows of each request from 0; rows of one request must be adjacent."""
    starts = np.flatnonzero(np.diff(q, prepend=np.int64(-1)) != 0)
    sizes = np.diff(np.append(starts, len(q)))
    return np.arange(len(q)) - np.repeat(starts, sizes)


class Scatter:
    """Puts one value per row at `[request, slot]` of a padded array."""

    def __init__(self, frame: pl.DataFrame, first: int, requests: int, size: int):
        q = frame["q"].to_numpy().astype(np.int64)
        self._at = q - first, places(q)
        self._shape = requests, size

    def __call__(self, values: np.ndarray, empty: Any) -> np.ndarray:
        array = np.full((*self._shape, *values.shape[1:]), empty, values.dtype)
        array[self._at] = values
        return array


def ids(frame: pl.DataFrame, widths: Widths) -> np.ndarray:
    """Stack columns of feature ids; a bag fills several: `int32 [rows, columns]`."""
    parts = [np.zeros((len(frame), 0), np.int32)]
    for name, width in widths.items():
        column = frame[name]
        if column.dtype == pl.List:
            parts.append(_spread(column, width))
        else:
            parts.append(column.fill_null(UNKNOWN).to_numpy().astype(np.int32)[:, None])
    return np.concatenate(parts, axis=1)


def _spread(column: pl.Series, width: int) -> np.ndarray:
    """Write the first `width` values of each list into a row; the rest is padding."""
    lists = column.fill_null([]).list.head(width)
    sizes = lists.list.len().to_numpy().astype(np.int64)
    row = np.repeat(np.arange(len(lists)), sizes)
    place = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    spread = np.zeros((len(lists), width), np.int32)
    spread[row, place] = lists.explode().drop_nulls().to_numpy()
    return spread


def _slate(frame: pl.DataFrame, first: int, requests: int, size: int) -> np.ndarray:
    """Return the slots of the first K shown candidates, by position; -1 = none."""
    q = frame["q"].to_numpy().astype(np.int64)
    slot, position = places(q), frame["position"].to_numpy()
    shown = np.flatnonzero(position > 0)
    order = shown[np.lexsort((position[shown], q[shown]))]
    place = places(q[order])
    kept = place < size
    slate = np.full((requests, size), -1, np.int32)
    slate[q[order][kept] - first, place[kept]] = slot[order][kept]
    return slate


def keep_trainable(chunk: Split) -> np.ndarray:
    """Mark the requests that a model can learn from, with a judged positive: `bool [n]`."""
    batch = chunk.batch
    judged = np.asarray(batch.request.where) & (np.asarray(batch.weights) > 0)
    positive: np.ndarray = judged & (np.asarray(batch.labels) > POSITIVE)
    return np.asarray(positive.any(axis=1))


def tally(chunk: Split) -> Counter[str]:
    """Count requests and candidates of a chunk, for the report."""
    batch = chunk.batch
    where, weights = np.asarray(batch.request.where), np.asarray(batch.weights)
    positive = where & (weights > 0) & (np.asarray(batch.labels) > POSITIVE)
    items = np.asarray(batch.request.candidates)[..., 0]
    return Counter(
        requests_kept=len(where),
        candidates=int(where.sum()),
        judged_candidates=int((where & (weights > 0)).sum()),
        shown_candidates=int(np.asarray(batch.exposed).sum()),
        positives_kept=int(positive.sum()),
        positives_cut=int(np.asarray(chunk.positives).sum() - positive.sum()),
        unknown_items=int((where & (items == UNKNOWN)).sum()),
        unknown_users=int((np.asarray(batch.request.user)[:, 0] == UNKNOWN).sum()),
        requests_without_history=int((~np.asarray(batch.request.history_where).any(1)).sum()),
    )
