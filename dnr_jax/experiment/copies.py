"""Copy run folders elsewhere, such as to a mounted drive; a copy is verified or absent."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from dnr_jax import durable, sealed
from dnr_jax.io import lock, run_folder

_BLOCK = 2**20


def copy_run(workdir: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Copy a run folder, finished or not; a run can continue from the copy.

    Every file is read back and compared by SHA-256 before the copy gets its name. An earlier copy
    of that name is replaced at the end, in one rename. Meanwhile no process can run in `workdir`.

    Args:
      workdir: the run folder.
      target: the copy, e.g. `/content/drive/MyDrive/runs/first`; folders above it are made.

    Returns:
      `target` as an absolute path.

    Raises:
      FileNotFoundError: there is no such run folder.
      FileExistsError: `target` exists and is not a run folder.
      ValueError: a process has the run folder open.
      DamagedError: a file that was read back differs from what was written.
    """
    source, target = Path(workdir).absolute(), Path(target).absolute()
    if not (source / run_folder.CONFIG).is_file():
        raise FileNotFoundError(f"{source} is not a run folder: it has no {run_folder.CONFIG}")
    if target.exists() and not (target / run_folder.CONFIG).is_file():
        raise FileExistsError(f"{target} is not a copy of a run folder: choose another name")
    fresh, old = (target.with_name(f".{target.name}.{word}") for word in ("new", "old"))
    durable.remove(fresh)
    try:
        with lock.held(source):
            digests = {name: _copy(source / name, fresh / name) for name in _files(source)}
        for name, digest in digests.items():
            sealed.check(fresh / name, digest, cure="the drive has not kept it: copy again")
        if target.exists():
            durable.remove(old)
            os.replace(target, old)
        durable.publish(fresh, target)
    finally:
        durable.remove(fresh)
    durable.remove(old)
    return target


def _files(folder: Path) -> Iterator[Path]:
    """List all files but the lock, relative to the folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != lock.LOCK:
            yield path.relative_to(folder)


def _copy(source: Path, target: Path) -> str:
    """Copy one file; return the hash of what was read."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with source.open("rb") as original, durable.naming(target), target.open("wb") as copy:
        while block := original.read(_BLOCK):
            digest.update(block)
            copy.write(block)
    return digest.hexdigest()
