"""The folder of one run: its config, environment, records and results.

Everything in it but `timings.jsonl` and `environment.json` is a pure function of the config and
the data: an interrupted and resumed run leaves the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dnr_jax import durable, json_files
from dnr_jax.io import environment

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
TIMINGS = "timings.jsonl"
RESULTS = "results.json"
PER_REQUEST = "per_request.parquet"
AUDIT = "audit.json"
CHECKPOINTS = "checkpoints"
PLOTS = "plots"
ANALYSIS = "analysis"
ROWS = "rows"
LOCK = ".lock"
_LOG = logging.getLogger(__name__)


class RunFolder:
    """An opened run folder; `open_run` makes it. Closing it, or dying, frees its lock."""

    def __init__(self, path: Path, lock: int):
        self.path = path
        self._lock = lock

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the lock; a second call does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def checkpoints(self, row: str) -> Path:
        """Return the checkpoint folder of one row of the table."""
        return self.path / CHECKPOINTS / row

    def write_json(self, name: str, value: Any) -> None:
        """Replace file `name` by `value`; see `json_files.write`."""
        json_files.write(self.path / name, value)

    def append_metrics(self, *records: Mapping[str, Any]) -> None:
        """Append training records, durable when it returns.

        Each holds `row`, `seed`, `epoch` and numbers, and nothing that differs between two runs
        of one config (times go to `append_timings`). Append an epoch's records BEFORE its
        checkpoint is saved: `rewind_metrics` can drop records, not invent them.
        """
        json_files.append_lines(self.path / METRICS, records)

    def append_timings(self, *records: Mapping[str, Any]) -> None:
        """Append records of wall time, which no result may depend on."""
        json_files.append_lines(self.path / TIMINGS, records)

    def rewind_metrics(self, row: str, epoch: int) -> None:
        """Drop the records of `row` after `epoch`, the one its checkpoint was saved at.

        Args:
          row: the table row that is about to be trained.
          epoch: last epoch to keep; one below the first epoch drops the whole row.
        """
        path = self.path / METRICS
        if not path.exists():
            return
        kept = [
            r for r in json_files.read_lines(path) if r.get("row") != row or r["epoch"] <= epoch
        ]
        json_files.write_lines(path, kept)

    def write_per_request(self, columns: Mapping[str, np.ndarray]) -> None:
        """Write `per_request.parquet`; see `write_per_request`."""
        write_per_request(self.path / PER_REQUEST, columns)

    def write_analysis(self, row: str, **arrays: np.ndarray) -> None:
        """Write the arrays that the plots of one row need to `analysis/<row>.npz`."""
        path = self.path / ANALYSIS / f"{row}.npz"
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{row}.tmp.npz")
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
        durable.publish(temporary, path)


def open_run(workdir: str | os.PathLike[str], config: Mapping[str, Any]) -> RunFolder:
    """Make a run folder, or open it again to go on where it was left.

    Args:
      workdir: the folder; made if missing.
      config: the resolved config as plain nested data (`ConfigDict.to_dict()`).

    Raises:
      ValueError: another process has the folder open, its saved config differs (each differing
        key is named), it holds results but no config, or it is no folder.
    """
    path = Path(workdir).absolute()
    if path.exists() and not path.is_dir():
        raise ValueError(f"workdir {path} is a file: choose a folder")
    path.mkdir(parents=True, exist_ok=True)
    run = RunFolder(path, _take_lock(path))
    try:
        _settle_config(path, config)
        _settle_environment(path)
        for name in (METRICS, TIMINGS):
            json_files.drop_torn_line(path / name)
    except BaseException:
        run.close()
        raise
    return run


def _take_lock(path: Path) -> int:
    """Lock the folder for this process; the kernel frees the lock however the process ends."""
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode(errors="replace") or "unknown"
        os.close(descriptor)
        raise ValueError(
            f"run folder {path} is in use by process {holder}: "
            "wait until it ends or choose another --workdir"
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def _settle_config(path: Path, config: Mapping[str, Any]) -> None:
    """Save the config of a new folder, or refuse one that differs from the saved."""
    new = json_files.plain(config)
    work = (AUDIT, METRICS, RESULTS, CHECKPOINTS, ROWS)
    made = [name for name in work if (path / name).exists()]
    if made and not (path / CONFIG).exists():
        raise ValueError(
            f"{path} holds {', '.join(made)} but no {CONFIG}: "
            "choose another --workdir or delete this folder"
        )
    if not made:  # a new folder, or one whose first config was refused before any work
        json_files.write(path / CONFIG, new)
        return
    old, new = dict(_flatten(json_files.read(path / CONFIG))), dict(_flatten(new))
    absent = "(absent)"
    differing = [
        f"config.{key}: saved {old.get(key, absent)!r}, now {new.get(key, absent)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, absent) != new.get(key, absent)
    ]
    if differing:
        raise ValueError(
            f"run folder {path} was made with another config:\n  " + "\n  ".join(differing) + "\n"
            "choose another --workdir, delete this folder, or set these keys back"
        )


def _settle_environment(path: Path) -> None:
    """Save the environment of a new folder; note what differs in a resumed one."""
    now = json_files.plain(environment.describe())
    if not (path / ENVIRONMENT).exists():
        json_files.write(path / ENVIRONMENT, now)
        return
    first = json_files.read(path / ENVIRONMENT)
    resumed = first.pop("resumed", [])
    changed = {k: v for k, v in now.items() if first.get(k) != v and k != "command"}
    if changed and changed not in resumed:
        _LOG.warning(
            "run folder %s was started in another environment (%s differ): "
            "results may differ from an uninterrupted run",
            path,
            ", ".join(changed),
        )
        json_files.write(path / ENVIRONMENT, first | {"resumed": [*resumed, changed]})


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _flatten(inner, f"{prefix}.{key}" if prefix else key)


def write_per_request(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Replace a parquet file of one row per model, seed and request in one step.

    Args:
      path: the file.
      columns: equally long arrays by name: `model` str, `seed` int32, `request_id` int64, metrics
        float32 with NaN where a request is excluded.

    Raises:
      ValueError: the columns differ in length.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of {path.name} differ in length: {lengths}")
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(pa.table({n: pa.array(c) for n, c in columns.items()}), temporary)
    durable.publish(temporary, path)
