"""Raw requests of a table's form: ids and values in, the arrays of prepared requests out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dnr_jax.data.encoders import (
    UNKNOWN,
    Encoded,
    Encoders,
    Vocabulary,
    check_keys,
    count_unknown,
    integer,
    listed,
)
from dnr_jax.types import Request

FIELDS = ("user_id", "history", "items")
ITEM = ("item_id", "score")


def encode(
    encoders: Encoders, requests: Sequence[Mapping[str, Any]], *, size: int | None = None
) -> Encoded:
    """Encode raw requests as those of the table were.

    Args:
      encoders: of the prepared data.
      requests: each `{"user_id": 42, "history": [item id, ...], "items": [{"item_id": 7}, ...]}`
        and the features that the table had, under its names: those of user and context beside
        "items", those of items in them. The candidates in any order, the history with the latest
        last. Only "items" and their ids are needed; what is left out is unknown.
      size: candidates N that arrays have room for; None = as prepared.

    Raises:
      ValueError: a field is missing, unknown or of the wrong kind, or there are more items than
        `size`; the text names the request by its place from 0.
    """
    size = encoders.size if size is None else size
    user, context, item = (encoders.transforms["widths"][s] for s in ("user", "context", "item"))
    count, words = len(requests), encoders.vocabularies["item_id"]
    wide = {"user_id": 1, **user}
    users = np.zeros((count, sum(wide.values())), np.int32)
    contexts = np.zeros((count, sum(context.values())), np.int32)
    past = np.zeros((count, encoders.history), np.int32)
    candidates = np.zeros((count, size, 1 + sum(item.values())), np.int32)
    for row, raw in enumerate(requests):
        place = f"request {row}"
        check_keys(place, raw, (*FIELDS, *user, *context), ("items",))
        items = listed(f"{place}: items", raw["items"])
        if not 0 < len(items) <= size:
            raise ValueError(f"{place} has {len(items)} items: it must have 1 to {size}")
        users[row] = _record(place, raw, wide, encoders)
        contexts[row] = _record(place, raw, context, encoders)
        for slot, one in enumerate(items):
            check_keys(f"{place}: item {slot}", one, (*ITEM, *item), ITEM[:1])
            named = {"item_id": 1, **item}
            candidates[row, slot] = _record(f"{place}: item {slot}", one, named, encoders)
        events = listed(f"{place}: history", raw.get("history") or [])[-encoders.history :]
        if events:
            past[row, -len(events) :] = _ids(f"{place}: history", events, words)
    arrays: dict[str, Any] = {
        "index": np.arange(count, dtype=np.uint32),
        "user": users,
        "context": contexts,
        "history": past[..., None],
        "history_where": past > 0,
        "candidates": candidates,
        "where": candidates[..., 0] > 0,
    }
    request = Request(**arrays)
    return Encoded(request, count_unknown(request, encoders.spec))


def _record(
    place: str, raw: Mapping[str, Any], widths: Mapping[str, int], encoders: Encoders
) -> np.ndarray:
    """Encode the columns of one record: `int32 [columns]`."""
    kinds, parts = encoders.transforms["kinds"], [np.zeros(0, np.int32)]
    for name, width in widths.items():
        value, words = raw.get(name), encoders.vocabularies[name]
        part = np.zeros(width, np.int32)
        if kinds.get(name) == "bag":
            values = [] if value is None else listed(f"{place}: {name}", value)[:width]
        else:
            values = [value]
        part[: len(values)] = _ids(f"{place}: {name}", values, words)
        parts.append(part)
    return np.concatenate(parts)


def _ids(place: str, raw: Sequence[Any], words: Vocabulary) -> np.ndarray:
    """Return feature ids `int32 [n]` of raw values; a missing one is unknown."""
    known = np.array([value is not None for value in raw], bool)
    if words.keys.dtype.kind == "U":
        values = np.array([_text(place, value) for value in raw], np.str_)
    else:
        values = np.array([integer(place, value) for value in raw], np.int64)
    return np.where(known, words.encode(values), UNKNOWN).astype(np.int32)


def _text(place: str, value: Any) -> str:
    """Return a raw id as the table's reader would write it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | np.integer):
        raise ValueError(f"{place} is {value!r}: it must be text or an integer")
    return str(value)
