"""Raw requests of a table's form: ids and values in, the arrays of prepared requests out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

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
from dnr_jax.data.table import scales
from dnr_jax.data.table.scales import Scales
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
    numbers, item_numbers = (
        scales.read(encoders.transforms[name]) for name in ("numbers", "item_numbers")
    )
    count, words = len(requests), encoders.vocabularies["item_id"]
    wide = {"user_id": 1, **user}
    users = np.zeros((count, sum(wide.values())), np.int32)
    contexts = np.zeros((count, sum(context.values())), np.int32)
    past = np.zeros((count, encoders.history), np.int32)
    candidates = np.zeros((count, size, 1 + sum(item.values())), np.int32)
    for row, raw in enumerate(requests):
        place = f"request {row}"
        check_keys(place, raw, (*FIELDS, *user, *context, *numbers), ("items",))
        items = listed(f"{place}: items", raw["items"])
        if not 0 < len(items) <= size:
            raise ValueError(f"{place} has {len(items)} items: it must have 1 to {size}")
        users[row] = _record(place, raw, wide, encoders)
        contexts[row] = _record(place, raw, context, encoders)
        for slot, one in enumerate(items):
            check_keys(f"{place}: item {slot}", one, (*ITEM, *item, *item_numbers), ITEM[:1])
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
        "numbers": _numbers([("request", n, raw) for n, raw in enumerate(requests)], numbers),
        "item_numbers": None,
    }
    if item_numbers:
        rows = [
            (f"request {n}: item", slot, item)
            for n, raw in enumerate(requests)
            for slot, item in enumerate(raw["items"])
        ]
        values = _numbers(rows, item_numbers)
        assert values is not None
        arrays["item_numbers"] = np.zeros((count, size, values.shape[1]), np.float32)
        arrays["item_numbers"][arrays["where"]] = values
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


def _numbers(rows: list[tuple[str, int, Mapping[str, Any]]], scales_: Scales) -> np.ndarray | None:
    """Scale the numbers of named records: `float32 [rows, columns]`."""
    columns = {}
    for name, scale in scales_.items():
        width = len(scale.mean)
        values = [_number(f"{place} {n}: {name}", raw.get(name), width) for place, n, raw in rows]
        kind = pl.List(pl.Float32) if width else pl.Float64
        columns[name] = scale.scale(pl.Series(name, values, dtype=kind))
    return scales.stack(pl.DataFrame(columns), scales_)


def _number(place: str, value: Any, width: int) -> Any:
    """Check a raw number, or a list of `width` numbers; None = missing."""
    if value is None:
        return None
    parts = listed(place, value) if width else [value]
    for part in parts:
        real = isinstance(part, int | float | np.number) and not isinstance(part, bool)
        if not real or not np.isfinite(part):
            raise ValueError(f"{place} is {part!r}: it must be a finite number")
    if width and len(parts) != width:
        raise ValueError(f"{place} has {len(parts)} numbers: it must have {width}")
    return [float(part) for part in parts] if width else float(value)


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
