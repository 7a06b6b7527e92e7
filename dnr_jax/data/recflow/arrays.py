"""From a day's candidate rows to the arrays of a split, a bounded chunk of requests at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dnr_jax.data.encoders import Vocabulary
from dnr_jax.data.recflow import features, files, rows
from dnr_jax.data.recflow.features import Transforms
from dnr_jax.data.recflow.settings import MAX_HISTORY
from dnr_jax.data.settings import Shape
from dnr_jax.data.store import Split
from dnr_jax.types import Batch, Request

CHUNK = 8192  # requests: about 30 MB of arrays and 35 MB of raw history


def chunks(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Cut a day's candidates (sorted by `q`) into frames of at most `CHUNK` whole requests."""
    q = frame["q"].to_numpy()
    count = int(q[-1]) + 1 if len(q) else 0
    edges = np.searchsorted(q, [*range(0, count, CHUNK), count]).tolist()
    for first, last in pairwise(edges):
        yield frame[first:last].with_columns(pl.col("q") - q[first])


def split_arrays(
    frame: pl.DataFrame,
    histories: Mapping[int, np.ndarray],
    source: Path | str,
    *,
    vocabularies: Mapping[str, Vocabulary],
    transforms: Transforms,
    shape: Shape,
    history: int,
    first_index: int,
) -> tuple[Split, dict[str, int]]:
    """Build one chunk of a split.

    Args:
      frame: candidates of whole requests, columns as `rows.candidates` makes them, `q`
        from 0, plus `truth` (null where unknown).
      histories: raw history by request id.
      source: where the histories come from, for error texts.
      vocabularies: as fitted on train days.
      transforms: of times, lengths and shares.
      shape: candidates N and places K.
      history: events kept T.
      first_index: number of the chunk's first request in its split.

    Returns:
      the arrays, and counts of requests without history and of events dropped as leaks.
    """
    heads = frame.unique("q", keep="first", maintain_order=True)
    ids = heads["request_id"].to_numpy()
    events = stack_events(ids, histories, source)
    times = heads["request_timestamp"].to_numpy()
    past, real, leaks = features.history_columns(events, times, vocabularies, transforms, history)
    fill = _Scatter(frame, len(heads), shape.size)
    arrays: dict[str, Any] = {
        "index": (first_index + np.arange(len(heads))).astype(np.uint32),
        "history": past,
        "history_where": real,
        "candidates": fill(_items(frame, vocabularies, transforms), 0),
        "where": fill(np.ones(len(frame), bool), False),
    }
    request = Request(**arrays, **_heads(heads, vocabularies, transforms))
    feedback: dict[str, Any] = {
        "scores": fill(frame["score"].to_numpy(), 0),
        "labels": fill(frame["label"].to_numpy(), 0),
        "exposed": fill(frame["realshow"].to_numpy(), False),
        "slate": _slate(frame, len(heads), shape.slate),
        "weights": fill(frame["weight"].to_numpy(), 0),
    }
    truth = fill(frame["truth"].fill_null(np.nan).to_numpy().astype(np.float32), np.nan)
    counts = {
        "requests_without_history": int((~real.any(axis=1)).sum()),
        "history_events_after_request": leaks,
    }
    positives = heads["positives"].to_numpy()
    return Split(Batch(request=request, **feedback), ids, positives, truth), counts


def _heads(
    heads: pl.DataFrame, vocabularies: Mapping[str, Vocabulary], transforms: Transforms
) -> dict[str, Any]:
    """Encode what a request's rows share: its user and its time."""
    user = [vocabularies[name].encode(heads[name].to_numpy()) for name in files.USER]
    time = heads.select(rows.seconds("request_timestamp")).to_series().to_numpy()
    clock = features.clock(time, transforms)
    return {
        "user": np.stack(user, axis=-1),
        "context": np.stack([clock[n] for n in features.CONTEXT], axis=-1).astype(np.int32),
    }


class _Scatter:
    """Puts one value a row at `[q, slot]` of a padded array."""

    def __init__(self, frame: pl.DataFrame, requests: int, size: int):
        self._place = frame["q"].to_numpy(), frame["slot"].to_numpy()
        self._shape = requests, size

    def __call__(self, values: np.ndarray, empty: Any) -> np.ndarray:
        array = np.full((*self._shape, *values.shape[1:]), empty, values.dtype)
        array[self._place] = values
        return array


def _items(
    frame: pl.DataFrame, vocabularies: Mapping[str, Vocabulary], transforms: Transforms
) -> np.ndarray:
    columns = frame.select(
        *files.ITEM,
        "duration",
        upload_seconds=rows.seconds("upload_timestamp"),
        request_seconds=rows.seconds("request_timestamp"),
    )
    rows_by_name = {c.name: c.to_numpy() for c in columns}
    return features.item_columns(rows_by_name, vocabularies, transforms)


def _slate(frame: pl.DataFrame, requests: int, size: int) -> np.ndarray:
    """Order shown rows by logged place (the nearest thing to display order); first K, -1 none."""
    shown = frame.filter("realshow").sort(
        "q", "shown_rank", "rank", "draw0", nulls_last=True, maintain_order=True
    )
    shown = shown.with_columns(place=pl.int_range(pl.len()).over("q"))
    shown = shown.filter(pl.col("place") < size)
    slate = np.full((requests, size), -1, np.int32)
    slate[shown["q"].to_numpy(), shown["place"].to_numpy()] = shown["slot"].to_numpy()
    return slate


def stack_events(
    ids: np.ndarray, histories: Mapping[int, np.ndarray], source: Path | str
) -> np.ndarray:
    """Stack raw histories `int64 [R, 50, 10]`; requests without one get zeros."""
    events = np.zeros((len(ids), MAX_HISTORY, files.HISTORY_WIDTH), np.int64)
    for row, request_id in enumerate(ids.tolist()):
        past = histories.get(request_id)
        if past is None or np.size(past) == 0:
            continue
        past = np.asarray(past)
        if past.ndim != 2 or past.shape[1] != files.HISTORY_WIDTH or past.dtype.kind not in "iuf":
            raise ValueError(
                f"{source}: the history of request {request_id} is {past.dtype}{past.shape}, "
                f"expected integers [events, {files.HISTORY_WIDTH}]"
            )
        past = past[-MAX_HISTORY:]
        events[row, MAX_HISTORY - len(past) :] = past
    return events
