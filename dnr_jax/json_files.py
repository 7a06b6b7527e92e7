"""JSON files without NaN, written atomically, and a reader that says what is wrong."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dnr_jax import durable

PUT_BACK = "put it back from a copy, or delete its folder to start anew"
_LOG = logging.getLogger(__name__)


class DamagedError(ValueError):
    """A file differs from what was written; the text gives the file, the fault and the cure."""


def write(path: Path, value: Any) -> None:
    """Replace a JSON file in one step.

    Args:
      path: the file.
      value: nested dicts, lists, tuples, strings, numbers, numpy or jax arrays and paths; NaN and
        infinities become null.

    Raises:
      ValueError: a value of another kind.
    """
    durable.write_bytes(path, (encode(value, indent=1) + "\n").encode())


def read(path: Path, *, keys: Collection[str] = (), cure: str = PUT_BACK) -> Any:
    """Read a JSON file.

    Args:
      path: the file.
      keys: what the object in it must hold, if any; then it must be an object.
      cure: what the error message tells the user to do about `path`.

    Raises:
      FileNotFoundError: there is no such file.
      DamagedError: it is not a file, is not JSON, or lacks a key.
    """
    try:
        value = json.loads(path.read_bytes())
    except IsADirectoryError:
        raise DamagedError(f"{path} is {durable.FOLDER}: {cure}") from None
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is not JSON ({error}): {cure}") from None
    if keys and not isinstance(value, dict):
        raise DamagedError(f"{path} holds a {type(value).__name__}, not an object: {cure}")
    missing = [key for key in keys if key not in value]
    if missing:
        raise DamagedError(f"{path} lacks {', '.join(map(repr, missing))}: {cure}")
    return value


def append_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Append records to a file of one JSON record per line; they are on disk at return."""
    durable.append(path, b"".join(map(line, records)))


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file of one JSON record per line, in one step."""
    durable.write_bytes(path, b"".join(map(line, records)))


def read_lines(path: Path, *, keys: Collection[str] = ()) -> list[dict[str, Any]]:
    """Read a file of one JSON record per line; other lines are left out with a warning.

    Args:
      path: the file; if it is missing, there are no records.
      keys: what a record must hold.

    Raises:
      DamagedError: it is a folder.
    """
    if path.is_dir():
        raise DamagedError(f"{path} is {durable.FOLDER}: move it away")
    return _parse(path, path.read_bytes(), keys) if path.exists() else []


def mend_lines(path: Path, *, keys: Collection[str] = ()) -> None:
    """Drop invalid lines from a file of one JSON record per line, so it can be appended to.

    A record that a kill left half-written is dropped silently, anything else with a warning.
    """
    if not path.is_file():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    torn = content[end:].startswith(b'{"')
    kept = b"".join(map(line, _parse(path, content[:end] if torn else content, keys)))
    if kept != content:
        durable.write_bytes(path, kept)


def encode(value: Any, indent: int | None = None) -> str:
    """Return the JSON text of a value that `write` accepts."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def line(record: Mapping[str, Any]) -> bytes:
    """Return a record as one line of a file of records."""
    return (encode(record) + "\n").encode()


def plain(value: Any) -> Any:
    """Convert a value that `write` accepts to what reading its JSON file would return."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy and jax arrays and scalars
        return plain(np.asarray(value).tolist())
    raise ValueError(f"{value!r} is a {type(value).__name__}, which JSON cannot hold")


def _parse(path: Path, content: bytes, keys: Collection[str]) -> list[dict[str, Any]]:
    """Return the records of a file's lines; one warning names the invalid lines."""
    found = [_record(line, keys) for line in content.splitlines()]
    bad = [str(number) for number, record in enumerate(found, start=1) if record is None]
    if bad:
        _LOG.warning(
            "%s: line %s cannot be read and is skipped: its records are lost, but no result is "
            "affected",
            *(path, ", ".join(bad)),
        )
    return [record for record in found if record is not None]


def _record(line: bytes, keys: Collection[str]) -> dict[str, Any] | None:
    """Parse one line; None if it is not a record with these keys."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and all(key in record for key in keys)
    return record if whole else None
