"""Raw requests of a log table -> arrays, by NumPy alone.

An exported model carries a copy of this file: it imports nothing of its package.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

UNKNOWN, KNOWN = 1, 2  # feature ids; 0 is padding
UNSHIFTED = ("", "as_is", "sigmoid")  # transforms of scores that a shift would change
WHOLE = re.compile("[+-]?[0-9]+")
Raw = Mapping[str, Any]


class Encoder:
    """Makes arrays of raw requests, many at a time.

    A raw request is `{"user_id": 42, "history": [item id, ...], "items": [{"item_id": 7}, ...]}`,
    with the features of user and context beside "items" and those of items in them, under their
    names. What is left out, None or not known is unknown. Kinds of values are not checked.

    Args:
      keys: the known values of each column, sorted: `int64 [n]` or `str [n]`.
      transforms: `widths`, `kinds`, `numbers`, `item_numbers` and `score` of the trained model, and
        `hashed` where it has hashed columns.
      history: events T.
    """

    def __init__(self, keys: Mapping[str, np.ndarray], transforms: Mapping[str, Any], history: int):
        self._keys, self._kinds, self._history = keys, transforms["kinds"], history
        user, context, item = (transforms["widths"][s] for s in ("user", "context", "item"))
        self._user, self._context, self._item = {"user_id": 1, **user}, context, item
        self._numbers, self._item_numbers = transforms["numbers"], transforms["item_numbers"]
        self._score, self._hashed = transforms["score"], transforms.get("hashed", {})

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Encoder:
        """Read the folder `encoders` of a model."""
        folder = Path(folder)
        content = json.loads((folder / "encoders.json").read_text("utf-8"))
        keys = {name: np.load(folder / f"keys.{name}.npy") for name in content["vocabularies"]}
        return cls(keys, content["transforms"], content["history"])

    def arrays(self, requests: Sequence[Raw], size: int) -> dict[str, np.ndarray]:
        """Encode raw requests of 1 to `size` items: the fields of a `Request`, NumPy arrays.

        Those of numbers are left out where there are none. Candidates keep their order; the draws
        of a request do not depend on its place, so `index` is 0.
        """
        items = [item for raw in requests for item in raw["items"]]
        where = np.arange(size) < np.array([len(raw["items"]) for raw in requests])[:, None]
        past = self._past([_listed(raw.get("history")) for raw in requests])
        found = {
            "index": np.zeros(len(requests), np.uint32),
            "user": self._ids(requests, self._user),
            "context": self._ids(requests, self._context),
            "history": past[..., None],
            "history_where": past > 0,
            "candidates": _filled(where, self._ids(items, {"item_id": 1, **self._item})),
            "where": where,
        }
        if self._numbers:
            found["numbers"] = _numbers(requests, self._numbers)
        if self._item_numbers:
            found["item_numbers"] = _filled(where, _numbers(items, self._item_numbers))
        return found

    def raw_scores(self, scores: Iterable[Sequence[float]], where: np.ndarray) -> np.ndarray:
        """Lay out the first stage's scores, a list a request: `float32 [B, N]`.

        Those that are transformed by order or range have the least of their request subtracted:
        large ones would not be told apart in float32.
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
        past[np.arange(self._history) >= start[:, None]] = self._codes("item_id", flat)
        return past

    def _ids(self, records: Sequence[Raw], widths: Mapping[str, int]) -> np.ndarray:
        """Stack the feature ids of some columns, a bag as several: `int32 [n, columns]`."""
        parts = [np.zeros((len(records), 0), np.int32)]
        for name, width in widths.items():
            values = [record.get(name) for record in records]
            if name in self._hashed:
                parts.append(self._two_rows(name, values, width))
            elif self._kinds.get(name) == "bag":
                parts.append(self._bag(name, values, width))
            else:
                parts.append(self._codes(name, values)[:, None])
        return np.concatenate(parts, axis=1)

    def _bag(self, name: str, values: list[Any], width: int) -> np.ndarray:
        lists = [_listed(value)[:width] for value in values]
        bag = np.zeros((len(lists), width), np.int32)
        real = np.arange(width) < np.array([len(own) for own in lists])[:, None]
        bag[real] = self._codes(name, [value for own in lists for value in own])
        return bag

    def _two_rows(self, name: str, values: list[Any], width: int) -> np.ndarray:
        """Hash each value, or each of its list, to two columns."""
        bag = self._kinds[name] == "bag"
        lists = [_listed(value)[: width // 2] if bag else [value] for value in values]
        flat = [value for own in lists for value in own]
        found = np.zeros((len(lists), width), np.int32)
        real = np.arange(width) < 2 * np.array([len(own) for own in lists])[:, None]
        read = texts_hashed if self._keys[name].dtype.kind == "U" else integers_hashed
        found[real] = two_rows(*read(flat), self._hashed[name]).reshape(-1)
        return found

    def _codes(self, name: str, values: list[Any]) -> np.ndarray:
        """Look values up: `int32 [n]`."""
        keys = self._keys[name]
        if not len(keys) or not values:
            return np.full(len(values), UNKNOWN, np.int32)
        raw, readable = (_texts if keys.dtype.kind == "U" else _integers)(values, keys.dtype)
        place = np.minimum(np.searchsorted(keys, raw), len(keys) - 1)
        return np.where(readable & (keys[place] == raw), KNOWN + place, UNKNOWN).astype(np.int32)


def two_rows(hashes: np.ndarray, known: Any, buckets: int) -> np.ndarray:
    """Choose two rows of `buckets` for each hash, never the same: ids `int32 [n, 2]`.

    Two values share both rows with probability 2 / (buckets (buckets - 1)).

    Args:
      hashes: `uint64 [n]`.
      known: `bool [n]`, or True for all: those of no value are unknown, and padding.
      buckets: >= 2.
    """
    first = (mixed(hashes) % np.uint64(buckets)).astype(np.int64)
    step = (mixed(hashes + np.uint64(1)) % np.uint64(buckets - 1)).astype(np.int64)
    rows = KNOWN + np.stack([first, (first + 1 + step) % buckets], axis=1)
    known = np.broadcast_to(known, hashes.shape)[:, None]
    return np.where(known, rows, [[UNKNOWN, 0]]).astype(np.int32)


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Mix the bits of `uint64 [n]` (the finaliser of splitmix64, Steele et al. 2014)."""
    state = numbers * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(state ^ (state >> np.uint64(31)))


def integers_hashed(values: list[Any]) -> tuple[np.ndarray, Any]:
    """Hash integers, as they may be given: `uint64 [n]`, and which of them are some."""
    if not values:
        return np.zeros(0, np.uint64), True
    raw, known = _integers(values, np.dtype(np.int64))
    return mixed(raw.astype(np.uint64)), known


def texts_hashed(values: list[Any]) -> tuple[np.ndarray, Any]:
    """Hash texts by BLAKE2b: `uint64 [n]`, and which of them are some."""
    known = np.array([value is not None for value in values], bool)
    return np.array([_text_hash(value) for value in values], np.uint64), known


def _text_hash(value: Any) -> int:
    if value is None:
        return 0
    return int.from_bytes(hashlib.blake2b(_text(value).encode(), digest_size=8).digest(), "little")


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value)


def _filled(where: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Put the rows where they belong: `[B, N, columns]`."""
    filled = np.zeros((*where.shape, rows.shape[1]), rows.dtype)
    filled[where] = rows
    return filled


def _integers(values: list[Any], dtype: np.dtype[Any]) -> tuple[np.ndarray, Any]:
    try:
        raw = np.array(values)
    except ValueError:  # lists among them, of several lengths
        raw = np.empty(0)
    if raw.ndim == 1 and raw.dtype.kind == "i":
        return raw.astype(dtype), True
    read = [_integer(value) for value in values]
    readable = np.array([value is not None for value in read])
    return np.array([value or 0 for value in read], dtype), readable


def _integer(value: Any) -> int | None:
    """Read an id that may be text or a whole float; None for what is no int64."""
    if isinstance(value, str):
        value = int(value) if WHOLE.fullmatch(value) else None
    if value is None or isinstance(value, bool) or value != value // 1:
        return None
    return int(value) if -(2**63) <= value < 2**63 else None


def _texts(values: list[Any], dtype: np.dtype[Any]) -> tuple[np.ndarray, Any]:
    read = ["" if value is None else _text(value) for value in values]
    longest = dtype.itemsize // 4  # numpy would cut what is longer
    pairs = zip(values, read, strict=True)
    readable = np.array([value is not None and len(text) <= longest for value, text in pairs])
    return np.array(read, dtype), readable


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _numbers(records: Sequence[Raw], scales: Mapping[str, Raw]) -> np.ndarray:
    """Scale the numbers of records: `float32 [n, columns]`, 0 where one is missing."""
    parts = []
    for name, scale in scales.items():
        values = [record.get(name) for record in records]
        gone = np.array([value is None for value in values], bool)
        parts.append((_vectors if scale["mean"] else _places)(values, gone, scale))
        if scale["missing"]:
            parts.append(gone[:, None].astype(np.float32))
    return np.concatenate(parts, axis=1)


def _places(values: list[Any], gone: np.ndarray, scale: Raw) -> np.ndarray:
    raw = np.array([0.0 if value is None else value for value in values], np.float64)
    places = (2 * np.interp(raw, scale["knots"], scale["shares"]) - 1).astype(np.float32)
    return np.where(gone, np.float32(0), places)[:, None]


def _vectors(values: list[Any], gone: np.ndarray, scale: Raw) -> np.ndarray:
    found = np.zeros((len(values), len(scale["mean"])), np.float32)
    if not gone.all():
        known = np.array([value for value in values if value is not None], np.float32)
        found[~gone] = (known - np.array(scale["mean"])) / np.array(scale["spread"])
    return found
