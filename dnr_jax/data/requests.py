"""Raw requests of an interactions data set: raw ids in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dnr_jax.data.direct import POSITIVE
from dnr_jax.data.encoders import Encoded, Encoders, Vocabulary, check_keys, integer, listed
from dnr_jax.data.lists import Lists
from dnr_jax.types import FeatureSpec

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
        candidates in any order, the user's earlier items with the latest last; an item alone
        counts as liked. Only "items" is required; `None` stands for an unknown user.
      size: candidates N that the arrays can hold; None = as prepared.

    Raises:
      ValueError: a field is missing, unknown or of the wrong kind, or there are more items than
        `size`; the text names the request by its place from 0.
    """
    size = encoders.size if size is None else size
    check(encoders, requests, size)
    return encoders.encoded(requests, size)


def check(encoders: Encoders, requests: Sequence[Mapping[str, Any]], size: int) -> None:
    """Refuse raw requests that `encode` does not accept; see `encode`."""
    for number, raw in enumerate(requests):
        _check(f"request {number}", raw, size, encoders.vocabularies)


def _check(place: str, raw: Any, size: int, words: Mapping[str, Vocabulary]) -> None:
    check_keys(place, raw, FIELDS, ("items",))
    items = listed(f"{place}: items", raw["items"])
    if not 0 < len(items) <= size:
        raise ValueError(f"{place} has {len(items)} items: it must have 1 to {size}")
    _check_id(f"{place}: user", raw.get("user"), words["user_id"])
    for item in items:
        _check_id(f"{place}: an item", item, words["item_id"])
    past = raw.get("history")
    for event in [] if past is None else listed(f"{place}: history", past):
        _check_id(f"{place}: a history item", _met(place, event), words["item_id"])


def _met(place: str, event: Any) -> Any:
    """Return the item of a history event, which is an item or [item, liked]."""
    if not isinstance(event, list | tuple | np.ndarray):
        return event
    if len(event) != 2 or event[1] not in (0, 1):
        raise ValueError(
            f"{place} has {event!r} in its history: it must be [item, liked], or an item"
        )
    return event[0]


def _check_id(place: str, value: Any, words: Vocabulary) -> None:
    """Refuse an id that is not None and not of the data's kind, integer or text."""
    if words.keys.dtype.kind != "U":
        integer(place, value)
    elif not isinstance(value, str | None):
        raise ValueError(f"{place} is {value!r}: it must be text, as the ids of this data are")
