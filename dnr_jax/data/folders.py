"""Folders that are either complete or absent, each made by one process at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dnr_jax import durable

_LOG = logging.getLogger(__name__)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder, renamed to `folder` once the block ends without an error.

    Raises:
      FileExistsError: `folder` already exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: delete it to make it anew")
    temporary = durable.unfinished(folder)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        durable.publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one process at a time make `folder`; remove what killed processes left beside it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder, wait=True):
        _sweep(folder.parent, own=folder.name)
        yield


@contextmanager
def _lock(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock file of `folder`; yield False if it is taken and `wait` is False."""
    path = folder.with_name(f".{folder.name}.lock")
    descriptor = _acquire(path, folder, wait)
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)  # while locked, so no other process can hold it
        os.close(descriptor)


def _acquire(path: Path, folder: Path, wait: bool) -> int | None:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        taken = _flock(descriptor, fcntl.LOCK_NB)
        if not taken and wait:
            _LOG.info("another process is making %s: waiting for it", folder)
            taken = _flock(descriptor, 0)
        if taken and _same(descriptor, path):
            return descriptor
        os.close(descriptor)
        if not taken:
            return None


def _flock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | mode)
    except BlockingIOError:
        return False
    return True


def _same(descriptor: int, path: Path) -> bool:
    """Tell whether the lock file at `path` is still this one; its holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _sweep(parent: Path, own: str) -> None:
    """Remove unfinished folders of `own`, whose lock is held, and of names not locked by anyone."""
    for path in parent.glob(".*.tmp"):
        found = durable.LEFTOVER.fullmatch(path.name)
        if found is None or not path.is_dir() or path.is_symlink():
            continue
        if found["name"] == own:
            shutil.rmtree(path, ignore_errors=True)
            continue
        with _lock(parent / found["name"], wait=False) as held:
            if held:
                shutil.rmtree(path, ignore_errors=True)
