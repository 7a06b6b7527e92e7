"""Atomic writes: after a kill, a file or folder is either complete or absent.

A file is written under an unpredictable name, opened exclusively and without following links, and
renamed last: a file or link already at the final name is replaced, never written through.
"""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

FOLDER = "a folder where a file should be"
LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.tmp")  # what `unfinished` names
_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def unfinished(path: Path) -> Path:
    """Choose a temporary name beside `path` for its unfinished content."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def sync(path: Path) -> None:
    """Flush one file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file or folder its name: flush all of it, rename it, flush the rename."""
    for inner in temporary.rglob("*"):
        sync(inner)
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file, renamed to `path` once the block ends without an error.

    The folder is made if it is missing.

    Raises:
      OSError: it cannot be written; `filename` is set. `path` is then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(path)
    try:
        with naming(path), os.fdopen(os.open(temporary, os.O_RDWR | _NEW, 0o644), "wb") as file:
            yield cast(BinaryIO, file)
        publish(temporary, path)
    except IsADirectoryError:
        raise IsADirectoryError(
            errno.EISDIR, "a folder where a file should be", str(path)
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step; the folder is made if it is missing."""
    with replacing(path) as file:
        file.write(content)


def append(path: Path, content: bytes) -> None:
    """Append to a file, made if it is missing; the content is on disk when this returns.

    Raises:
      OSError: it cannot be written, or is a link; the file is then unchanged.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with naming(path), os.fdopen(os.open(path, flags, 0o644), "ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            _write_all(file, content)
        except BaseException:
            file.truncate(before)
            raise
        os.fsync(file.fileno())


def _write_all(file: io.FileIO, content: bytes) -> None:
    """Write until the system has taken all; a full disk raises an error at the next attempt."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder and its content; it need not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove unfinished files and folders that killed processes left in `folder`, if it exists.

    To be called only by the one process that writes there.
    """
    for path in folder.glob(".*.tmp"):
        if LEFTOVER.fullmatch(path.name):
            remove(path)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add `path` to a system error that names no file, as for a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
