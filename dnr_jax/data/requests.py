"""Requests of an interactions data set as its user would write them: raw ids in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dnr_jax.data import encoders as encoders_
from dnr_jax.data.encoders import Encoded, Encoders, Vocabulary, count_unknown, integer
from dnr_jax.data.lists import NEGATIVE, POSITIVE, Lists
from dnr_jax.types import FeatureSpec, Request

FIELDS = ("user", "items", "history")


def encoders_of(lists: Lists, size: int) -> Encoders:
    """Collect what `encode` needs; `size` is the number of candidates N."""
    catalogue = lists.catalogue
    sizes = {name: words.size for name, words in catalogue.vocabularies.items()}
    spec = FeatureSpec(
        user=catalogue.user_columns,
        context=(),
        history=("item_id", "feedback"),
        item=catalogue.item_columns,
        sizes=sizes | {"feedback": POSITIVE + 1},
    )
    tables = {"user": catalogue.users, "item": catalogue.items}
    history = lists.history.shape[1]
    return Encoders(spec, size, history, catalogue.vocabularies, tables, {})


def encode(
    encoders: Encoders, requests: Sequence[Mapping[str, Any]], *, size: int | None = None
) -> Encoded:
    """Encode raw requests as the prepared ones were.

    Args:
      encoders: of the prepared data.
      requests: each `{"user": 42, "items": [raw item, ...], "history": [[raw item, liked], ...]}`:
        candidates in any order, what the user met before with the latest last. Only "items" is
        needed; `None` stands for a user who is not known.
      size: candidates N that arrays have room for; None = as prepared.

    Raises:
      ValueError: a field is missing, unknown or of the wrong kind, or there are more items than
        `size`; the text names the request by its place from 0.
    """
    size = encoders.size if size is None else size
    users, items = encoders.vocabularies["user_id"], encoders.vocabularies["item_id"]
    count, history = len(requests), encoders.history
    user, candidates = np.zeros(count, np.int32), np.zeros((count, size), np.int32)
    met, feedback = np.zeros((2, count, history), np.int32)
    for row, raw in enumerate(requests):
        place = f"request {row}"
        encoders_.check_keys(place, raw, FIELDS, ("items",))
        shown = encoders_.listed(f"{place}: items", raw["items"])
        past = _events(place, raw.get("history", []))[-history:]
        if not 0 < len(shown) <= size:
            raise ValueError(f"{place} has {len(shown)} items: it must have 1 to {size}")
        user[row] = _ids(f"{place}: user", [raw.get("user")], users)[0]
        candidates[row, : len(shown)] = _ids(f"{place}: an item", shown, items)
        if past:
            met[row, -len(past) :] = _ids(f"{place}: a history item", [i for i, _ in past], items)
            feedback[row, -len(past) :] = [POSITIVE if liked else NEGATIVE for _, liked in past]
    arrays: dict[str, Any] = {
        "index": np.arange(count, dtype=np.uint32),
        "user": encoders.tables["user"][user],
        "context": np.zeros((count, 0), np.int32),
        "history": np.stack([met, feedback], -1),
        "history_where": met > 0,
        "candidates": encoders.tables["item"][candidates],
        "where": candidates > 0,
    }
    request = Request(**arrays)
    return Encoded(request, count_unknown(request, encoders.spec))


def _events(place: str, history: Any) -> list[tuple[Any, bool]]:
    """Check a raw history of [item, liked]."""
    events = []
    for raw in encoders_.listed(f"{place}: history", history):
        event = encoders_.listed(f"{place}: a history event", raw)
        if len(event) != 2 or event[1] not in (0, 1):
            raise ValueError(f"{place} has {raw!r} in its history: it must be [item, liked]")
        events.append((event[0], bool(event[1])))
    return events


def _ids(place: str, raw: Sequence[Any], words: Vocabulary) -> np.ndarray:
    """Return feature ids `int32 [n]` of raw ids: integers, or text as the data's."""
    if words.keys.dtype.kind == "U":
        return words.encode(np.array([_text(place, value) for value in raw], np.str_))
    known = np.array([value is not None for value in raw], bool)
    numbers = np.array([integer(place, value) for value in raw], np.int64)
    return np.where(known, words.encode(numbers), encoders_.UNKNOWN).astype(np.int32)


def _text(place: str, value: Any) -> str:
    """Return an id of text; "", which is no id, for None."""
    if value is None or isinstance(value, str):
        return value or ""
    raise ValueError(f"{place} is {value!r}: it must be text, as the ids of this data are")
