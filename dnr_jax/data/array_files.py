"""Arrays as files of raw bytes: written in chunks, described by a manifest, memory-mapped.

For each array, the manifest holds its dtype, its shape and the SHA-256 of its file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dnr_jax import sealed
from dnr_jax.json_files import DamagedError
from dnr_jax.sealed import CURE

KINDS = "biuf"  # of numpy: bool, int, unsigned, float


class Appender:
    """Writes arrays to files in a new folder, one chunk of rows at a time."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._arrays: dict[str, _Written] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def __contains__(self, name: str) -> bool:
        """Tell whether any chunk of an array was written."""
        return name in self._arrays

    def append(self, name: str, array: np.ndarray) -> None:
        """Add rows to an array.

        Raises:
          ValueError: its dtype or the shape of a row differs from the first chunk's.
        """
        array = np.ascontiguousarray(array)
        written = self._arrays.setdefault(name, _Written(array.dtype.str, array.shape[1:]))
        if (array.dtype.str, array.shape[1:]) != (written.dtype, written.width):
            raise ValueError(
                f"array {name}: this chunk is {array.dtype.str}{list(array.shape)}, earlier ones "
                f"{written.dtype}{[written.rows, *written.width]}"
            )
        content = array.tobytes()
        with open(_file(self._folder, name), "ab") as file:
            file.write(content)
        written.rows += len(array)
        written.digest.update(content)

    def described(self) -> dict[str, list[Any]]:
        """Return the manifest entry of every array."""
        return {name: written.described() for name, written in self._arrays.items()}


class _Written:
    """The state of an array that is being written."""

    def __init__(self, dtype: str, width: tuple[int, ...]):
        self.dtype, self.width, self.rows = dtype, width, 0
        self.digest = hashlib.sha256()

    def described(self) -> list[Any]:
        return [self.dtype, [self.rows, *self.width], self.digest.hexdigest()]


class Entry(NamedTuple):
    """An array as the manifest describes it."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    digest: str


def entries(described: Mapping[str, Any]) -> list[Entry]:
    """Read the entries of a manifest, which is not trusted: plain names and numbers only.

    Raises:
      AttributeError, TypeError: it contains anything else.
    """
    return [_entry(name, *entry) for name, entry in described.items()]


def _entry(name: str, dtype: str, shape: list[int], digest: str) -> Entry:
    plain = re.fullmatch(r"\w+(\.\w+)*", name)
    numeric = re.fullmatch(rf"[<>|=]?[{KINDS}]\d{{1,2}}", str(dtype))
    if not plain or not numeric or not all(type(n) is int and n >= 0 for n in shape):
        raise TypeError(f"array {name!r} of {dtype!r}{shape!r}")
    return Entry(name, np.dtype(dtype), tuple(shape), digest)


def check_sizes(folder: Path, known: list[Entry], *, cure: str = CURE) -> None:
    """Raise `DamagedError` if a file has the wrong size, `FileNotFoundError` if it is missing."""
    for entry in known:
        path = _file(folder, entry.name)
        expected = int(np.prod(entry.shape, dtype=object)) * entry.dtype.itemsize
        if path.stat().st_size != expected:
            raise DamagedError(
                f"array {path} holds {path.stat().st_size} bytes, its manifest says "
                f"{expected}: {cure}"
            )


def check_hashes(folder: Path, known: list[Entry], *, cure: str = CURE) -> None:
    """Read every file once; raise `DamagedError` if one differs from what was written."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda e: sealed.check(_file(folder, e.name), e.digest, cure=cure), known))


def mapped(folder: Path, known: list[Entry]) -> dict[str, np.ndarray]:
    """Memory-map the arrays, read-only, by name."""
    return {entry.name: _map(folder, entry) for entry in known}


def _map(folder: Path, entry: Entry) -> np.ndarray:
    if 0 in entry.shape:  # an empty file cannot be mapped
        return np.zeros(entry.shape, entry.dtype)
    return np.memmap(_file(folder, entry.name), dtype=entry.dtype, mode="r", shape=entry.shape)


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"
