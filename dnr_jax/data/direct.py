"""Turn raw requests of a log table or of interactions into arrays, with NumPy alone.

An exported model carries a copy of this file and of `raw_values`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dnr_jax.data.raw_values import (
    Column,
    integers_hashed,
    looked_up,
    numbers,
    texts_hashed,
    two_rows,
)

LARGEST_SCORE = 1e38  # largest |first-stage score|: float32 holds the difference of any two
NO_NUMBERS = "SUMmc"  # kinds of NumPy's types: text, times and complex numbers
UNSHIFTED = ("", "as_is", "sigmoid")  # transforms of scores that a shift would change
NEGATIVE, POSITIVE = 2, 3  # feedback on an item of the history, stored beside its id
# For data whose raw requests hold nothing but ids.
PLAIN: Mapping[str, Any] = {
    "score": "",
    "widths": {"user": {}, "context": {}, "item": {}},
    "kinds": {},
    "numbers": {},
    "item_numbers": {},
}
Raw = Mapping[str, Any]


class Encoder:
    """Turns raw requests into arrays, many at a time.

    A raw request is `{"user_id": 42, "history": [item id, ...], "items": [{"item_id": 7}, ...]}`,
    with user and context features beside "items" and item features inside each item, under their
    names. A value that is left out, None or not in the vocabulary is unknown. Types are not
    checked. Items may also be a dict of columns: `{"item_id": [7, ...], "i_brand": [2, ...]}`.

    Args:
      keys: the known values of each column, sorted: `int64 [n]` or `str [n]`.
      transforms: `widths`, `kinds`, `numbers`, `item_numbers` and `score` of the trained model, and
        `hashed` where it has hashed columns.
      history: number of events T.
    """

    def __init__(self, keys: Mapping[str, np.ndarray], transforms: Mapping[str, Any], history: int):
        self._keys, self._kinds, self._history = keys, transforms["kinds"], history
        user, context, item = (transforms["widths"][s] for s in ("user", "context", "item"))
        self._user, self._item = {"user_id": 1, **user}, {"item_id": 1, **item}
        self._context = context
        self._numbers, self._item_numbers = transforms["numbers"], transforms["item_numbers"]
        self._score, self._hashed = transforms["score"], transforms.get("hashed", {})
        own = (*self._user, *self._context, *self._numbers)
        self.fields = frozenset((*own, "history", "items", "scores"))  # known keys of a raw request

    def arrays(self, requests: Sequence[Raw], size: int) -> dict[str, np.ndarray]:
        """Encode raw requests of 1 to `size` items: the fields of a `Request`, NumPy arrays.

        Number fields are left out if there are none. Candidates keep their order. `index` is 0,
        so a request's random draws do not depend on its position.
        """
        where = np.arange(size) < np.array([length(raw) for raw in requests])[:, None]
        own, items = partial(_column, requests), partial(_column_of_items, requests)
        past = self._past([_listed(raw.get("history")) for raw in requests])
        found = {
            "index": np.zeros(len(requests), np.uint32),
            "user": self._ids(own, self._user, len(where)),
            "context": self._ids(own, self._context, len(where)),
            "history": past[..., None],
            "history_where": past > 0,
            "candidates": _filled(where, self._ids(items, self._item, where.sum())),
            "where": where,
        }
        if self._numbers:
            found["numbers"] = numbers(own, self._numbers)
        if self._item_numbers:
            found["item_numbers"] = _filled(where, numbers(items, self._item_numbers))
        return found

    def raw_scores(
        self, scores: Iterable[Sequence[float] | np.ndarray], where: np.ndarray
    ) -> np.ndarray:
        """Lay out the first-stage scores, one list per request: `float32 [B, N]`.

        If the transform uses only order or range, the request's minimum is subtracted first:
        otherwise large scores could become equal in float32.
        """
        raw = np.zeros(where.shape)
        raw[where] = np.concatenate([np.asarray(own, np.float64) for own in scores])
        if self._score not in UNSHIFTED:
            least = np.min(raw, 1, initial=np.inf, where=where, keepdims=True)
            raw = np.where(where, raw - least, 0)
        return raw.astype(np.float32)

    def _past(self, histories: list[list[Any]]) -> np.ndarray:
        latest = [events[-self._history :] for events in histories]
        start = self._history - np.array([len(events) for events in latest])
        past = np.zeros((len(latest), self._history), np.int32)
        flat = [event for events in latest for event in events]
        past[np.arange(self._history) >= start[:, None]] = looked_up(self._keys["item_id"], flat)
        return past

    def _ids(self, column: Column, widths: Mapping[str, int], rows: int) -> np.ndarray:
        """Stack the feature ids of some columns; a bag fills several: `int32 [rows, columns]`."""
        parts = [np.zeros((rows, 0), np.int32)]
        for name, width in widths.items():
            values = column(name)
            if name in self._hashed:
                parts.append(self._two_rows(name, values, width))
            elif self._kinds.get(name) == "bag":
                parts.append(self._bag(name, values, width))
            else:
                parts.append(looked_up(self._keys[name], values)[:, None])
        return np.concatenate(parts, axis=1)

    def _bag(self, name: str, values: list[Any], width: int) -> np.ndarray:
        lists = [_listed(value)[:width] for value in values]
        bag = np.zeros((len(lists), width), np.int32)
        real = np.arange(width) < np.array([len(own) for own in lists])[:, None]
        bag[real] = looked_up(self._keys[name], [value for own in lists for value in own])
        return bag

    def _two_rows(self, name: str, values: list[Any], width: int) -> np.ndarray:
        """Hash each value, or each element if it is a list, to two columns."""
        bag = self._kinds[name] == "bag"
        lists = [_listed(value)[: width // 2] if bag else [value] for value in values]
        flat = [value for own in lists for value in own]
        found = np.zeros((len(lists), width), np.int32)
        real = np.arange(width) < 2 * np.array([len(own) for own in lists])[:, None]
        read = texts_hashed if self._keys[name].dtype.kind == "U" else integers_hashed
        found[real] = two_rows(*read(flat), self._hashed[name]).reshape(-1)
        return found


class PlainEncoder(Encoder):
    """Turns raw requests that hold only ids into arrays; features come from training.

    A raw request is `{"user": 42, "items": [item, ...], "history": [[item, liked], ...]}`. A
    history item without `liked` counts as liked.

    Args:
      keys, transforms, history: see `Encoder`.
      tables: features `int32 [ids, columns]` of "user" and "item" by encoded id.
    """

    def __init__(
        self,
        keys: Mapping[str, np.ndarray],
        transforms: Mapping[str, Any],
        history: int,
        tables: Mapping[str, np.ndarray],
    ):
        super().__init__(keys, transforms, history)
        self._tables = tables
        self.fields = frozenset(("user", "history", "items", "scores"))

    def arrays(self, requests: Sequence[Raw], size: int) -> dict[str, np.ndarray]:
        """Encode raw requests; see `Encoder.arrays`."""
        met = [events(raw) for raw in requests]
        records = [
            {
                "user_id": raw.get("user"),
                "history": [item for item, _ in past],
                "items": {"item_id": raw["items"]},
            }
            for raw, past in zip(requests, met, strict=True)
        ]
        found = super().arrays(records, size)
        liked = [liked for past in met for _, liked in past[-self._history :]]
        return found | described(found, self._tables, np.array(liked, bool))


def length(raw: Raw) -> int:
    """Return the number of items of a raw request."""
    items = raw["items"]
    return len(items["item_id"] if isinstance(items, dict) else items)


def checked_scores(place: str, given: Any, count: int) -> np.ndarray:
    """Return the first-stage scores of one request as `float64 [count]`.

    Raises:
      ValueError: they are not `count` finite numbers of at most `LARGEST_SCORE`; the text names
        the request by `place`.
    """
    try:
        plain = np.asarray(given)
        scores = plain.astype(np.float64) if plain.dtype.kind not in NO_NUMBERS else np.zeros(0)
    except (TypeError, ValueError, OverflowError):  # another type, or lists within the list
        scores = np.zeros(0)
    if scores.shape != (count,) or not (np.abs(scores) <= LARGEST_SCORE).all():
        raise ValueError(
            f"{place}: scores are {given!r}: give {count} finite numbers, one per item, none above "
            f"{LARGEST_SCORE:g} in absolute value"
        )
    return scores


def events(raw: Raw) -> list[tuple[Any, bool]]:
    """List the history of a raw request that holds only ids: each item, and if it was liked."""
    return [_event(event) for event in _listed(raw.get("history"))]


def make(
    keys: Mapping[str, np.ndarray],
    transforms: Mapping[str, Any],
    history: int,
    tables: Mapping[str, np.ndarray],
) -> Encoder:
    """Make the encoder of a model's raw requests; see `PlainEncoder` for the arguments."""
    whole = {**PLAIN, **transforms}
    return PlainEncoder(keys, whole, history, tables) if tables else Encoder(keys, whole, history)


def load(folder: str | os.PathLike[str], score: str | None) -> Encoder:
    """Read a model's folder `encoders`; `score` comes from its card if the encoders have none."""
    folder = Path(folder)
    content = json.loads((folder / "encoders.json").read_text("utf-8"))
    keys = {name: np.load(folder / f"keys.{name}.npy") for name in content["vocabularies"]}
    tables = {name: np.load(folder / f"table.{name}.npy") for name in content["tables"]}
    transforms = {"score": score or "", **content["transforms"]}
    return make(keys, transforms, content["history"], tables)


def described(
    found: Raw, tables: Mapping[str, np.ndarray], liked: np.ndarray
) -> dict[str, np.ndarray]:
    """Look up the features of ids: the fields `user`, `candidates` and `history` of a `Request`.

    Args:
      found: the fields with ids alone, in column 0.
      tables: see `PlainEncoder`.
      liked: `bool [E]`, for all real events in order.
    """
    where = found["history_where"]
    feedback = np.zeros(where.shape, np.int32)
    feedback[where] = np.where(liked, POSITIVE, NEGATIVE)
    return {
        "user": tables["user"][found["user"][:, 0]],
        "candidates": tables["item"][found["candidates"][..., 0]],
        "history": np.stack([found["history"][..., 0], feedback], -1),
    }


def _column(records: Sequence[Raw], name: str) -> list[Any]:
    return [record.get(name) for record in records]


def _column_of_items(requests: Sequence[Raw], name: str) -> list[Any]:
    column: list[Any] = []
    for raw in requests:
        items = raw["items"]
        column.extend(items[name] if isinstance(items, dict) else _column(items, name))
    return column


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value)


def _event(event: Any) -> tuple[Any, bool]:
    """Split an event into the item and whether it was liked."""
    if isinstance(event, list | tuple | np.ndarray):
        return event[0], bool(event[1])
    return event, True


def _filled(where: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Scatter the rows to the places where `where` is True: `[B, N, columns]`."""
    filled = np.zeros((*where.shape, rows.shape[1]), rows.dtype)
    filled[where] = rows
    return filled
