"""Turn raw values of any given type into feature ids and scaled numbers, with NumPy alone.

An exported model carries a copy of this file, so it imports nothing from the package.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

UNKNOWN, KNOWN = 1, 2  # feature ids; 0 is padding
WHOLE = re.compile("[+-]?[0-9]+")
Raw = Mapping[str, Any]
Column = Callable[[str], list[Any]]  # a column's name -> its values, None = missing


def looked_up(keys: np.ndarray, values: list[Any]) -> np.ndarray:
    """Look values up among the sorted known `keys`: ids `int32 [n]`."""
    if not len(keys) or not values:
        return np.full(len(values), UNKNOWN, np.int32)
    raw, readable = (_texts if keys.dtype.kind == "U" else _integers)(values, keys.dtype)
    place = np.minimum(np.searchsorted(keys, raw), len(keys) - 1)
    return np.where(readable & (keys[place] == raw), KNOWN + place, UNKNOWN).astype(np.int32)


def two_rows(hashes: np.ndarray, known: Any, buckets: int) -> np.ndarray:
    """Choose two different rows of `buckets` for each hash: ids `int32 [n, 2]`.

    Two values share both rows with probability 2 / (buckets (buckets - 1)).

    Args:
      hashes: `uint64 [n]`.
      known: `bool [n]`, or True for all; rows without a value get the ids unknown and padding.
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
    """Hash integers given in any form: `uint64 [n]`, and which of them are present."""
    if not values:
        return np.zeros(0, np.uint64), True
    raw, known = _integers(values, np.dtype(np.int64))
    return mixed(raw.astype(np.uint64)), known


def texts_hashed(values: list[Any]) -> tuple[np.ndarray, Any]:
    """Hash texts by BLAKE2b: `uint64 [n]`, and which of them are present."""
    known = np.array([value is not None for value in values], bool)
    return np.array([_text_hash(value) for value in values], np.uint64), known


def _text_hash(value: Any) -> int:
    if value is None:
        return 0
    return int.from_bytes(hashlib.blake2b(_text(value).encode(), digest_size=8).digest(), "little")


def _integers(values: list[Any], dtype: np.dtype[Any]) -> tuple[np.ndarray, Any]:
    try:
        raw = np.array(values)
    except ValueError:  # lists of different lengths among them
        raw = np.empty(0)
    if raw.ndim == 1 and raw.dtype.kind == "i":
        return raw.astype(dtype), True
    read = [_integer(value) for value in values]
    readable = np.array([value is not None for value in read])
    return np.array([value or 0 for value in read], dtype), readable


def _integer(value: Any) -> int | None:
    """Read an id that may be text or a whole float; None if it is not an int64."""
    if isinstance(value, str):
        value = int(value) if WHOLE.fullmatch(value) else None
    if value is None or isinstance(value, bool) or value != value // 1:
        return None
    return int(value) if -(2**63) <= value < 2**63 else None


def _texts(values: list[Any], dtype: np.dtype[Any]) -> tuple[np.ndarray, Any]:
    read = ["" if value is None else _text(value) for value in values]
    longest = dtype.itemsize // 4  # numpy would cut longer text
    pairs = zip(values, read, strict=True)
    readable = np.array([value is not None and len(text) <= longest for value, text in pairs])
    return np.array(read, dtype), readable


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def numbers(column: Column, scales: Mapping[str, Raw]) -> np.ndarray:
    """Scale number columns: `float32 [n, columns]`, 0 where a value is missing."""
    parts = []
    for name, scale in scales.items():
        values = column(name)
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
