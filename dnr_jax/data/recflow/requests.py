"""Raw requests in RecFlow's columns: raw values in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dnr_jax.data import encoders as encoders_
from dnr_jax.data.encoders import Encoded, Encoders, check_keys, count_unknown, integer
from dnr_jax.data.recflow import arrays, features, files
from dnr_jax.data.recflow.features import Transforms
from dnr_jax.types import Request

FIELDS = ("user", "time", "items", "history")
ITEM = (*files.ITEM, "upload_timestamp", "duration")
# Columns of a history array, in the order of the files; the last one, the request, is not read.
EVENT = (*features.HISTORY[:5], "upload_timestamp", "duration", "time", "playing_time")


def encode(
    encoders: Encoders, requests: Sequence[Mapping[str, Any]], *, size: int | None = None
) -> Encoded:
    """Encode raw requests as the logged ones were.

    Args:
      encoders: of the prepared data.
      requests: each `{"user": {column: value}, "time": epoch ms, "items": [{column: value}, ...],
        "history": [{column: value}, ...]}`: columns of `files.USER`, `ITEM` and `EVENT`, candidates
        in any order, the history with the latest last. "time" and "items" are needed, and the time
        of each event; a column that is left out is unknown.
      size: candidates N that arrays have room for; None = as prepared.

    Raises:
      ValueError: a field is missing, unknown or of the wrong kind, or there are more items than
        `size`; the text names the request by its place from 0.
    """
    size = encoders.size if size is None else size
    parsed = [_parse(f"request {row}", raw, size) for row, raw in enumerate(requests)]
    request, dropped = _arrays(parsed, encoders, size)
    return Encoded(request, count_unknown(request, encoders.spec), dropped)


class _Parsed(NamedTuple):
    """One raw request as numbers, -1 where there is none.

    Attributes:
      time: epoch, in seconds or milliseconds.
      user: columns of `files.USER`.
      items: `int64 [n, len(ITEM)]`.
      events: `int64 [events, files.HISTORY_WIDTH]`, as in the files.
    """

    time: int
    user: list[int]
    items: np.ndarray
    events: np.ndarray


def _parse(place: str, raw: Any, size: int) -> _Parsed:
    check_keys(place, raw, FIELDS, ("time", "items"))
    items = _records(f"{place}: items", f"{place}: item", raw["items"], ITEM)
    if not 0 < len(items) <= size:
        raise ValueError(f"{place} has {len(items)} items: it must have 1 to {size}")
    past, event = raw.get("history", []), f"{place}: history event"
    events = _records(f"{place}: history", event, past, EVENT, ("time",))
    times = [integer(f"{place}: time", raw["time"]), *(e[EVENT.index("time")] for e in events)]
    if min(times) <= 0:
        raise ValueError(f"{place} has a time of {min(times)}: it must be the epoch's, above 0")
    return _Parsed(
        time=times[0],
        user=_values(f"{place}: user", raw.get("user", {}), files.USER),
        items=np.array(items, np.int64),
        events=np.array([[*e, 0] for e in events], np.int64).reshape(-1, files.HISTORY_WIDTH),
    )


def _arrays(parsed: list[_Parsed], encoders: Encoders, size: int) -> tuple[Request, int]:
    transforms, count = _transforms(encoders), len(parsed)
    time = np.array([one.time for one in parsed], np.int64)
    events = arrays.stack_events(
        np.arange(count), {row: one.events for row, one in enumerate(parsed)}, "raw requests"
    )
    past, real, dropped = features.history_columns(
        events, time, encoders.vocabularies, transforms, encoders.history
    )
    where = np.arange(size) < np.array([len(one.items) for one in parsed], int)[:, None]
    candidates = np.zeros((count, size, len(features.ITEM)), np.int32)
    at = np.nonzero(where)[0]
    rows = np.concatenate([np.zeros((0, len(ITEM)), np.int64), *(one.items for one in parsed)])
    candidates[where] = _items(rows, time[at], encoders, transforms)
    columns: dict[str, Any] = {
        "index": np.arange(count, dtype=np.uint32),
        "user": _users([one.user for one in parsed], encoders),
        "context": _context(time, transforms),
        "history": past,
        "history_where": real,
        "candidates": candidates,
        "where": where,
    }
    return Request(**columns), dropped


def _transforms(encoders: Encoders) -> Transforms:
    """Read the stored numbers; a tuple is a list in JSON."""
    stored: dict[str, Any] = {}
    for name, value in encoders.transforms.items():
        stored[name] = tuple(value) if isinstance(value, list) else value
    return Transforms(**stored)


def _users(users: list[list[int]], encoders: Encoders) -> np.ndarray:
    values = np.array(users, np.int64).reshape(-1, len(files.USER))
    columns = [encoders.vocabularies[n].encode(values[:, i]) for i, n in enumerate(files.USER)]
    return np.stack(columns, axis=-1)


def _context(time: np.ndarray, transforms: Transforms) -> np.ndarray:
    clock = features.clock(features.seconds(time), transforms)
    return np.stack([clock[name] for name in features.CONTEXT], axis=-1).astype(np.int32)


def _items(
    columns: np.ndarray, time: np.ndarray, encoders: Encoders, transforms: Transforms
) -> np.ndarray:
    """Encode item rows `int64 [n, len(ITEM)]` of requests at `time` `int64 [n]`."""
    rows = {name: columns[:, number] for number, name in enumerate(ITEM)}
    rows["upload_seconds"] = features.seconds(rows["upload_timestamp"])
    rows["request_seconds"] = features.seconds(time)
    return features.item_columns(rows, encoders.vocabularies, transforms)


def _records(
    all_of: str, one: str, raw: Any, known: Sequence[str], needed: Sequence[str] = ()
) -> list[list[int]]:
    records = enumerate(encoders_.listed(all_of, raw))
    return [_values(f"{one} {number}", record, known, needed) for number, record in records]


def _values(place: str, raw: Any, known: Sequence[str], needed: Sequence[str] = ()) -> list[int]:
    """Return the columns of one raw record in order, -1 where it has none."""
    check_keys(place, raw, known, needed)
    return [integer(f"{place}: {name}", raw.get(name)) for name in known]
