"""Writes that a kill cannot tear: a file or folder is complete under its name, or not there."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Flush one file or folder entry to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file or folder its name: flush it and all it holds, rename it, flush that."""
    for inner in temporary.rglob("*"):
        sync(inner)
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step; the folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    publish(temporary, path)
