"""JSON files that cannot be torn and hold no NaN."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dnr_jax import durable


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


def read(path: Path) -> Any:
    """Read a JSON file.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): delete its folder to run again") from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON record a line.

    Raises:
      ValueError: a line is not JSON.
    """
    records = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            raise ValueError(
                f"{path} line {number} is not JSON: delete its folder to run again"
            ) from None
    return records


def append_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Append records to a file of one JSON record a line; durable when it returns."""
    with open(path, "ab") as file:
        file.write(b"".join(map(_line, records)))
        file.flush()
        os.fsync(file.fileno())


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file of one JSON record a line in one step."""
    durable.write_bytes(path, b"".join(map(_line, records)))


def drop_torn_line(path: Path) -> None:
    """Cut what follows the last newline: a record that a kill left half-written."""
    if path.exists():
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            durable.write_bytes(path, whole)


def encode(value: Any, indent: int | None = None) -> str:
    """Return JSON text of what `write` accepts."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def plain(value: Any) -> Any:
    """Turn a value that `write` accepts into what a JSON file would give back."""
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


def _line(record: Mapping[str, Any]) -> bytes:
    return (encode(record) + "\n").encode()
