"""JSON files that carry a hash of their own content, and hashes of files beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dnr_jax import json_files
from dnr_jax.json_files import DamagedError

CURE = "delete its folder and run again to make it anew"
SEAL = "seal"


def write(path: Path, content: dict[str, Any]) -> None:
    """Replace a JSON file by `content` and its hash in one step; see `json_files.write`."""
    plain = json.loads(json_files.encode(content))
    json_files.write(path, plain | {SEAL: _seal(plain)})


def read(path: Path, keys: Collection[str], *, cure: str = CURE) -> dict[str, Any]:
    """Read what `write` wrote.

    Args:
      path: the file.
      keys: keys that it must hold.
      cure: what the error message tells the user to do about it.

    Raises:
      FileNotFoundError: there is no such file.
      DamagedError: it is damaged or has been changed, or lacks a key.
    """
    content: dict[str, Any] = json_files.read(path, keys=[*keys, SEAL], cure=cure)
    if content.pop(SEAL) != _seal(content):
        raise DamagedError(f"{path} is not what was written: {cure}")
    return content


def _seal(plain: dict[str, Any]) -> str:
    return hashlib.sha256(json_files.encode(plain).encode()).hexdigest()


def digest(path: Path) -> str:
    """Hash the content of a file: SHA-256 as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: Path, expected: str, *, cure: str = CURE) -> None:
    """Raise `DamagedError` unless a file exists and its hash is `expected`."""
    if not path.is_file():
        raise DamagedError(f"{path} is missing or no file: {cure}")
    if digest(path) != expected:
        raise DamagedError(f"{path} is not what was written: {cure}")
