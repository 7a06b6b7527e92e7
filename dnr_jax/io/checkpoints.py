"""Checkpoints of a pytree of arrays with JSON metadata.

A checkpoint `name` is a folder of numbered versions. A version is built under a temporary name,
sealed with the SHA-256 of each of its files, and renamed last; the previous one is kept. Orbax does
not notice flipped bits in its files, so the seal is checked before anything is read.

Layout: `<folder>/<name>/<number>/seal.json` (specification, metadata, hashes) and `.../arrays/`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import jax

from dnr_jax import durable, json_files
from dnr_jax.io import leaves, orbax_files
from dnr_jax.io.leaves import Leaf

SEAL = "seal.json"
ARRAYS = "arrays"
KEPT_VERSIONS = 2
_LATE_WRITERS = 5  # attempts to remove a failed save, a tenth of a second apart
_LOG = logging.getLogger(__name__)


class _TornError(Exception):
    """A version's files do not match its seal."""


def save(folder: Path, name: str, state: Any, metadata: Mapping[str, Any]) -> None:
    """Write a new version of checkpoint `name`; it is on disk when this returns.

    A kill at any moment leaves the newest finished version readable. One process at a time may
    write to `folder`.

    Args:
      folder: holds all checkpoints of one row.
      name: a plain file name, e.g. "last".
      state: pytree of jax arrays (typed keys too) and numpy arrays; at least one not empty.
      metadata: JSON-able, small; tuples come back as lists, NaN and infinities as they are.

    Raises:
      ValueError: a leaf is not an array, the state has none, or `name` is not a plain file name.
      OSError: it cannot be written; the checkpoints are then unchanged.
    """
    home = _home(folder, name)
    home.mkdir(parents=True, exist_ok=True)
    for leftover in home.glob(".tmp-*"):  # from a save that was killed
        durable.remove(leftover)
    versions = _versions(home)
    number = 1 + (int(versions[0].name) if versions else 0)
    temporary = home / f".tmp-{number:08d}"
    try:
        _write_version(temporary, state, metadata)
        durable.publish(temporary, home / f"{number:08d}")
    except BaseException:
        _remove_with_what_follows(temporary)  # a full disk is not filled further
        raise
    for old in versions[KEPT_VERSIONS - 1 :]:
        durable.remove(old)


def _remove_with_what_follows(temporary: Path) -> None:
    """Remove a failed save; the writers of other arrays may still write into it for a moment.

    The next save removes anything that is left.
    """
    for _ in range(_LATE_WRITERS):
        with suppress(OSError):
            durable.remove(temporary)
        time.sleep(0.1)


def restore(folder: Path, name: str, template: Any) -> tuple[Any, dict[str, Any]] | None:
    """Read the newest sound version of checkpoint `name`, or None if there is no checkpoint.

    A version whose files were changed, cut or lost is set aside with a logged warning, and the
    previous one is read.

    Args:
      folder: as in `save`.
      name: as in `save`.
      template: pytree of arrays or `jax.ShapeDtypeStruct`s. The result has its structure, numpy
        arrays where it has them, and jax arrays with its shardings elsewhere.

    Returns:
      `(state, metadata)`.

    Raises:
      ValueError: every version is torn, or the saved structure, a shape or a dtype differs from
        the template's.
    """
    return _newest(folder, name, partial(_read_state, template=template))


def restore_part(
    folder: Path, name: str, place: str, template: Any
) -> tuple[Any, dict[str, Any]] | None:
    """Read one part of the state in the newest sound version of a checkpoint.

    Args:
      folder: as in `save`.
      name: as in `save`.
      place: its path in the tree, e.g. ".best_params" or "['params']"; the rest of the state
        need not be known.
      template: pytree of numpy arrays like that part.

    Returns:
      `(part, metadata)`; None if there is no checkpoint.

    Raises:
      ValueError: see `restore`.
    """
    return _newest(folder, name, partial(_read_part, place=place, template=template))


def _newest(
    folder: Path, name: str, read: Callable[[Path, list[Leaf]], Any]
) -> tuple[Any, dict[str, Any]] | None:
    """Read the newest sound version, and set damaged ones aside."""
    home = _home(folder, name)
    torn: list[Path] = []
    for version in _versions(home):
        try:
            content = _open_seal(version)
        except _TornError as error:
            _LOG.warning("checkpoint %s is torn (%s): trying the one before", version, error)
            torn.append(version)
            continue
        state = read(version, [Leaf(p, d, tuple(s)) for p, d, s in content["leaves"]])
        for bad in torn:  # so it is never counted as a kept version
            durable.remove(home / f"torn-{bad.name}")
            os.replace(bad, home / f"torn-{bad.name}")
        return state, content["metadata"]
    if torn:
        raise ValueError(
            f"checkpoint {home} is torn and no sound version is left: "
            f"delete {home.parent} to train this row again"
        )
    return None


def _home(folder: Path, name: str) -> Path:
    if not name or name.startswith(".") or Path(name).name != name:
        raise ValueError(f"checkpoint name {name!r} is not a plain file name such as 'last'")
    return Path(folder).absolute() / name


def _versions(home: Path) -> list[Path]:
    """List the finished versions, newest first."""
    return sorted((p for p in home.glob("*") if re.fullmatch(r"[0-9]{8}", p.name)), reverse=True)


def _write_version(version: Path, state: Any, metadata: Mapping[str, Any]) -> None:
    known, arrays = leaves.specify(state), leaves.host_arrays(state)
    if not any(array.size for array in arrays):
        raise ValueError("the state to save holds no array with an element in it")
    version.mkdir()
    orbax_files.write(version / ARRAYS, known, arrays)
    content = {"leaves": known, "metadata": dict(metadata), "files": _hash_files(version)}
    text = json.dumps(content)
    seal = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "content": text}
    durable.write_bytes(version / SEAL, json.dumps(seal).encode())


def _open_seal(version: Path) -> dict[str, Any]:
    """Return the content of a version's seal after checking all files against it."""
    try:
        seal = json_files.read(version / SEAL, keys=("content", "sha256"))
    except (json_files.DamagedError, FileNotFoundError, NotADirectoryError) as error:
        raise _TornError(f"{SEAL}: {type(error).__name__}") from error
    text = str(seal["content"])
    if hashlib.sha256(text.encode()).hexdigest() != seal["sha256"]:
        raise _TornError(f"{SEAL} was changed")
    content: dict[str, Any] = json.loads(text)
    found = _hash_files(version)
    bad = [n for n, digest in content["files"].items() if found.get(n) != digest]
    if bad:
        raise _TornError(f"changed or missing: {', '.join(bad)}")
    return content


def _hash_files(version: Path) -> dict[str, str]:
    files = (p for p in sorted(version.rglob("*")) if p.is_file() and p.name != SEAL)
    return {str(p.relative_to(version)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _read_state(version: Path, saved: list[Leaf], *, template: Any) -> Any:
    wanted = leaves.specify(template)
    _check_same(saved, wanted, version)
    slots, treedef = jax.tree.flatten(template)
    empty = [leaves.empty_host(slot) for slot in slots]
    arrays = orbax_files.read(version / ARRAYS, wanted, empty)
    placed = [leaves.place(a, slot) for a, slot in zip(arrays, slots, strict=True)]
    return jax.tree.unflatten(treedef, placed)


def _read_part(version: Path, saved: list[Leaf], *, place: str, template: Any) -> Any:
    inside = [leaf for leaf in saved if leaf.path.startswith(place)]
    wanted = [leaf._replace(path=place + leaf.path) for leaf in leaves.specify(template)]
    _check_same(inside, wanted, version)
    arrays = orbax_files.read(version / ARRAYS, saved, [leaves.saved_host(leaf) for leaf in saved])
    found = [a for leaf, a in zip(saved, arrays, strict=True) if leaf.path.startswith(place)]
    return jax.tree.unflatten(jax.tree.structure(template), found)


def _check_same(saved: list[Leaf], wanted: list[Leaf], version: Path) -> None:
    faults = leaves.differences(saved, wanted)
    if faults:
        raise ValueError(
            f"checkpoint {version} was written by another model or optimiser; "
            f"{len(faults)} difference(s), first: {'; '.join(faults[:3])}. "
            f"Use its own config, or delete {version.parent.parent} to train again"
        )
