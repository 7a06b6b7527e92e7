"""Merge rows trained in several run folders, such as on several machines, into one table."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnr_jax import json_files
from dnr_jax.data.folders import new_folder
from dnr_jax.experiment import scoring
from dnr_jax.io import config_file, environment, lock, row_files, run_folder

_LOG = logging.getLogger(__name__)
# Files that all rows of a run share; the copy takes them from the first run.
_SHARED = (run_folder.AUDIT, run_folder.CATALOGUE, run_folder.ENCODERS, run_folder.RETRIEVER)


@dataclass(frozen=True)
class _Run:
    """A run folder to take rows from.

    Attributes:
      path: the folder.
      shared: its config without rows and without the data path, which differs between machines.
      rows: the config of each row, by its key.
      finished: keys of the rows that have results.
      fingerprint: fingerprint of its data.
    """

    path: Path
    shared: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]
    finished: Sequence[str]
    fingerprint: str


def merge_runs(runs: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """Merge the finished rows of several run folders into a new one.

    A row does not depend on the other rows of its table, so the result equals one run of all rows,
    except for wall times and the environment. A row in several folders is taken from the first.
    The usual command with the whole table can continue in the new folder.

    Args:
      runs: run folders with the same settings and data; they are not changed.
      out: the folder to make, whole or not at all.

    Returns:
      `out` as an absolute path.

    Raises:
      FileNotFoundError: there is no such run folder, or nothing has been prepared in it.
      FileExistsError: `out` exists.
      ValueError: a folder is named twice, is in use or was made with other data or settings than
        the first, or no folder has a finished row.
      DamagedError: a file of a run folder is damaged.
    """
    target = Path(out).absolute()
    sources = [_found(Path(run).absolute()) for run in runs]
    _refuse_repeated(sources)
    with ExitStack() as locks:
        for source in sources:
            locks.enter_context(lock.held(source))
        found = [_read(source) for source in sources]
        for other in found[1:]:
            _refuse_different(found[0], other)
        homes = _homes(found)
        with new_folder(target) as temporary:
            _write(found, homes, temporary)
    return target


def _found(source: Path) -> Path:
    for name in (run_folder.CONFIG, run_folder.AUDIT):
        if not (source / name).is_file():
            raise FileNotFoundError(f"{source} is not a run folder with rows: it has no {name}")
    return source


def _refuse_repeated(sources: Sequence[Path]) -> None:
    seen: set[Path] = set()
    for source in sources:
        place = source.resolve()
        if place in seen:
            raise ValueError(f"{source} is named twice: name each run folder once")
        seen.add(place)


def _read(source: Path) -> _Run:
    config = config_file.read(source / run_folder.CONFIG)
    rows = config.pop(config_file.ROWS)
    config["data"] = {name: value for name, value in config["data"].items() if name != "path"}
    finished = [key for key in rows if row_files.read(source, key) is not None]
    for key in rows:
        if key not in finished:
            _LOG.warning("row %s of %s is not finished: it is left out", key, source)
    audit = json_files.read(source / run_folder.AUDIT, keys=("fingerprint",))
    return _Run(source, config, rows, finished, audit["fingerprint"])


def _refuse_different(first: _Run, other: _Run) -> None:
    """Refuse rows that are not comparable in one table."""
    if first.fingerprint != other.fingerprint:
        raise ValueError(
            f"{first.path} was made with data {first.fingerprint}, {other.path} with data "
            f"{other.fingerprint}: the rows of one table rank the same requests"
        )
    both = first.rows.keys() & other.rows.keys()
    configs = [
        {**run.shared, "rows": {key: run.rows[key] for key in both}} for run in (first, other)
    ]
    found = config_file.differences(*configs)
    if found:
        lines = [f"config.{key}: {one!r} there, {two!r} here" for key, one, two in found]
        raise ValueError(
            f"{other.path} was made with another config than {first.path}:\n  " + "\n  ".join(lines)
        )


def _homes(runs: Sequence[_Run]) -> dict[str, _Run]:
    """Return for each finished row the first run that has it, in the order of the runs' tables."""
    homes: dict[str, _Run] = {}
    for run in runs:
        for key in run.finished:
            homes.setdefault(key, run)
    if not homes:
        raise ValueError(f"none of {', '.join(str(run.path) for run in runs)} has a finished row")
    return homes


def _write(runs: Sequence[_Run], homes: Mapping[str, _Run], target: Path) -> None:
    first = runs[0]
    for name in _SHARED:
        _copy(first.path / name, target / name)
    for key, run in homes.items():
        for name in run_folder.of_row(key):
            _copy(run.path / name, target / name)
    config = config_file.read(first.path / run_folder.CONFIG)
    rows = {key: run.rows[key] for key, run in homes.items()}
    json_files.write(target / run_folder.CONFIG, {**config, config_file.ROWS: rows})
    json_files.write(target / run_folder.ENVIRONMENT, _environment(runs, homes))
    for name, records in _records(first, homes).items():
        json_files.write_lines(target / name, records)
    scoring.write_table(list(homes), target, first.fingerprint)


def _copy(source: Path, target: Path) -> None:
    """Copy a file, or a folder with its content; if it does not exist, do nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copyfile(source, target)


def _records(first: _Run, homes: Mapping[str, _Run]) -> dict[str, list[dict[str, Any]]]:
    """Return the lines of each file of records, row by row."""
    wanted = [(run_folder.FIRST_STAGE, first), *homes.items()]
    return {
        name: [
            line for key, run in wanted for line in _lines(run.path / name) if line["row"] == key
        ]
        for name in (run_folder.METRICS, run_folder.TIMINGS)
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return json_files.read_lines(path, keys=run_folder.TIMINGS_KEYS)


def _environment(runs: Sequence[_Run], homes: Mapping[str, _Run]) -> dict[str, Any]:
    """Return the first run's environment; differences of the other runs are in `merged`."""
    first, *others = (environment.read(run.path) for run in runs)
    merged = list(first.pop("merged", []))
    for run, other in zip(runs[1:], others, strict=True):
        merged += other.pop("merged", [])
        rows = [key for key, home in homes.items() if home is run]
        changed = {name: value for name, value in other.items() if value != first.get(name)}
        if rows:
            merged.append({"rows": rows, "command": other["command"], **changed})
    return {**first, **({"merged": merged} if merged else {})}
