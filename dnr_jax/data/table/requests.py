"""Raw requests in a log table's format: ids and values in, arrays of prepared requests out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dnr_jax.data.encoders import Encoded, Encoders, check_keys, integer, listed

FIELDS = ("user_id", "history", "items")
ITEM = ("item_id", "score")


def encode(
    encoders: Encoders, requests: Sequence[Mapping[str, Any]], *, size: int | None = None
) -> Encoded:
    """Encode raw requests as those of the table were.

    Args:
      encoders: of the prepared data.
      requests: each `{"user_id": 42, "history": [item id, ...], "items": [{"item_id": 7}, ...]}`
        and the table's features under their names: those of user and context beside "items",
        those of items inside each item. Candidates are in any order; the history has the latest
        last. Only "items" and their ids are required; anything left out is unknown.
      size: candidates N that the arrays can hold; None = as prepared.

    Raises:
      ValueError: a field is missing, unknown or of the wrong kind, or there are more items than
        `size`; the text names the request by its place from 0.
    """
    size = encoders.size if size is None else size
    for number, raw in enumerate(requests):
        _check(f"request {number}", raw, size, encoders)
    return encoders.encoded(requests, size)


def _check(place: str, raw: Any, size: int, encoders: Encoders) -> None:
    widths = encoders.transforms["widths"]
    own = {**widths["user"], **widths["context"]}, encoders.transforms["numbers"]
    of_item = widths["item"], encoders.transforms["item_numbers"]
    check_keys(place, raw, (*FIELDS, *own[0], *own[1]), ("items",))
    items = listed(f"{place}: items", raw["items"])
    if not 0 < len(items) <= size:
        raise ValueError(f"{place} has {len(items)} items: it must have 1 to {size}")
    _check_ids(place, raw, ("user_id", *own[0]), encoders)
    _check_numbers(place, raw, own[1])
    for slot, one in enumerate(items):
        there = f"{place}: item {slot}"
        check_keys(there, one, (*ITEM, *of_item[0], *of_item[1]), ITEM[:1])
        _check_ids(there, one, ("item_id", *of_item[0]), encoders)
        _check_numbers(there, one, of_item[1])
    past = raw.get("history")
    for event in [] if past is None else listed(f"{place}: history", past):
        _check_id(f"{place}: history", event, encoders, "item_id")


def _check_ids(
    place: str, raw: Mapping[str, Any], names: Iterable[str], encoders: Encoders
) -> None:
    for name in names:
        value, there = raw.get(name), f"{place}: {name}"
        bag = encoders.transforms["kinds"].get(name) == "bag" and value is not None
        for one in listed(there, value) if bag else [value]:
            _check_id(there, one, encoders, name)


def _check_id(place: str, value: Any, encoders: Encoders, name: str) -> None:
    if encoders.vocabularies[name].keys.dtype.kind != "U":
        integer(place, value)
    elif not isinstance(value, str | int | np.integer | None):
        raise ValueError(f"{place} is {value!r}: it must be text or an integer")


def _check_numbers(
    place: str, raw: Mapping[str, Any], scales: Mapping[str, Mapping[str, Any]]
) -> None:
    """Check raw numbers, or lists of the same length as in training; None = missing."""
    for name, scale in scales.items():
        value, there, width = raw.get(name), f"{place}: {name}", len(scale["mean"])
        if value is None:
            continue
        parts = listed(there, value) if width else [value]
        for part in parts:
            real = isinstance(part, int | float | np.number) and not isinstance(part, bool)
            if not real or not np.isfinite(part):
                raise ValueError(f"{there} is {part!r}: it must be a finite number")
        if width and len(parts) != width:
            raise ValueError(f"{there} has {len(parts)} numbers: it must have {width}")
