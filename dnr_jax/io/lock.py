"""Ownership of a run folder: by this program, and by one process at a time."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dnr_jax import json_files
from dnr_jax.io import environment

LOCK = ".lock"
_MARK = b"dnr_jax run folder"
_NAMED = 5  # entries of an unknown folder that the error names


def take(folder: Path) -> int:
    """Lock a folder for this process and return the open lock; the folder is made if missing.

    The kernel frees the lock when it is closed or the process ends, in whatever way.

    Raises:
      ValueError: `folder` is a file, another process holds it, its lock is not a plain file, or it
        is not empty and this program did not make it. Nothing in it was changed.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"workdir {folder} is a file: choose a folder")
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_strange(folder)
    descriptor = _open(folder / LOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = re.search(rb"process (\d+)", os.pread(descriptor, 100, 0))
        os.close(descriptor)
        raise ValueError(
            f"run folder {folder} is in use by process {holder[1].decode() if holder else '?'}: "
            "wait until it ends or choose another --workdir"
        ) from None
    # Overwritten without truncating first, so a concurrent reader still finds the mark.
    text = _MARK + f", used by process {os.getpid()}\n".encode()
    os.ftruncate(descriptor, os.pwrite(descriptor, text, 0))
    return descriptor


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder until the block ends; see `take`."""
    descriptor = take(folder)
    try:
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """Open the lock without following links, so nothing elsewhere is written to."""
    strange = f"{path} is not a regular file: delete it and start again"
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ValueError(strange)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o644)
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
        os.close(descriptor)
        raise ValueError(strange)
    return descriptor


def _refuse_strange(folder: Path) -> None:
    found = sorted(os.listdir(folder))
    if not found or _is_marked(folder, alone=found == [LOCK]) or _has_environment(folder):
        return
    more = ", ..." if len(found) > _NAMED else ""
    raise ValueError(
        f"workdir {folder} is not empty and was not made by this program; it holds "
        f"{', '.join(found[:_NAMED])}{more}: choose a new or an empty --workdir"
    )


def _is_marked(folder: Path, *, alone: bool) -> bool:
    """Tell whether the lock is this program's; a lock alone may be empty, left by a kill."""
    path = folder / LOCK
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        begin = file.read(len(_MARK))
    return begin == _MARK or (alone and not begin)


def _has_environment(folder: Path) -> bool:
    """Tell whether the folder describes a run of this program: its lock may have been lost."""
    try:
        json_files.read(folder / environment.FILE, keys=environment.KEYS)
    except (OSError, json_files.DamagedError):
        return False
    return True
