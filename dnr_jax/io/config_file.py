"""The config of a run folder, and the check whether a run may continue in it.

A config holds the knobs that the run's rows read: `rows`, by the row's key, and beside it those
that all rows share. A run may continue if no finished work would have come out differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dnr_jax import json_files

ROWS = "rows"
_ABSENT = "(absent)"
_CURE = "choose another --workdir or delete this folder"


def settle(
    path: Path,
    config: Mapping[str, Any],
    defaults: Mapping[str, Any],
    worked: Callable[[str], bool],
) -> None:
    """Save the config of a continued run, or refuse one that differs from the saved config.

    A knob that the saved config lacks had its default. Rows in only one of the two configs do not
    matter, nor do rows without any work. Rows with work stay in the file, to be compared when they
    come back.

    Args:
      path: the file; it exists.
      config: what the run reads now, as plain nested data.
      defaults: the same with every knob at its default.
      worked: whether a row, by its key, has left anything in the folder.

    Raises:
      ValueError: names each knob that differs.
      DamagedError: the file is not a run's config.
    """
    saved = read(path)
    done = {key: row for key, row in saved.get(ROWS, {}).items() if worked(key)}
    now = json_files.plain(config)
    rows = now.get(ROWS, {})
    both = {key: rows[key] for key in rows if key in done}
    old = {**saved, ROWS: {key: done[key] for key in both}}
    found = differences(old, {**now, ROWS: both}, json_files.plain(defaults))
    if found:
        lines = [f"config.{key}: saved {was!r}, now {value!r}" for key, was, value in found]
        raise ValueError(
            f"run folder {path.parent} was made with another config:\n  "
            + "\n  ".join(lines)
            + "\nchoose another --workdir, delete this folder, or set these knobs back"
        )
    kept = {key: row for key, row in done.items() if key not in rows}
    merged = {**now, ROWS: {**rows, **kept}}
    if merged != saved or list(merged[ROWS]) != list(saved.get(ROWS, {})):
        json_files.write(path, merged)


def read(path: Path) -> dict[str, Any]:
    """Read the config of a run.

    Raises:
      FileNotFoundError: there is no such file.
      DamagedError: the file is not a run's config.
    """
    found = json_files.read(path, cure=_CURE)
    rows = found.get(ROWS, {}) if isinstance(found, dict) else None
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise json_files.DamagedError(f"{path} is not a run's config: {_CURE}")
    return dict(found)


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> list[tuple[str, Any, Any]]:
    """List the knobs in which two configs differ, e.g. `rows.dnr_b.train.epochs`, and both values.

    Args:
      old: one config, plain nested data.
      new: the other.
      defaults: values for knobs that `old` lacks; a knob found nowhere is "(absent)".
    """
    before, after, usual = (dict(_flatten(part)) for part in (old, new, defaults or {}))
    return [
        (key, before.get(key, _ABSENT), after.get(key, _ABSENT))
        for key in sorted(before.keys() | after.keys())
        if before.get(key, usual.get(key, _ABSENT)) != after.get(key, _ABSENT)
    ]


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each leaf under its path; an empty section has none."""
    if not isinstance(value, Mapping):
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _flatten(inner, f"{prefix}.{key}" if prefix else key)
