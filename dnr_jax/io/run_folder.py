"""The folder of one run: its config, environment, records and results.

Everything in it but `timings.jsonl`, `environment.json` and `tensorboard/` is a pure function of
the config and the data: an interrupted and resumed run leaves the same bytes as an uninterrupted
one.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from dnr_jax import durable, json_files
from dnr_jax.io import config_file, environment, lock, metrics_file, row_files
from dnr_jax.io.event_files import EventFiles
from dnr_jax.io.metrics_file import MetricsFile
from dnr_jax.io.row_files import RowResults

ANALYSIS, MODELS, ROWS = row_files.ANALYSIS, row_files.MODELS, row_files.ROWS
METRICS, METRICS_KEYS = metrics_file.METRICS, metrics_file.KEYS
CONFIG = "config.json"
ENVIRONMENT = environment.FILE
TIMINGS = "timings.jsonl"
RESULTS = "results.json"
PER_REQUEST = "per_request.parquet"
AUDIT = "audit.json"
CHECKPOINTS = "checkpoints"
PLOTS = "plots"
ENCODERS = "encoders"
CATALOGUE = "catalogue.npz"
RETRIEVER = "retriever"
TIMINGS_KEYS = ("row",)
FIRST_STAGE = "first stage"  # the key of its timings, like a row's key
_LOG = logging.getLogger(__name__)


class RunFolder:
    """An open run folder, made by `open_run`; closing it or ending the process frees its lock."""

    def __init__(self, path: Path, lock: int, *, tensorboard: bool = False):
        self.path = path
        self._lock = lock
        self._metrics = MetricsFile(path, EventFiles(path) if tensorboard else None)

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
        self._metrics.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def has_begun(self, row: str) -> bool:
        """Tell whether a row has left results or checkpoints."""
        return _worked(self.path, row)

    def checkpoints(self, row: str) -> Path:
        """Return the checkpoint folder of one row of the table."""
        return self.path / CHECKPOINTS / row

    def write_json(self, name: str, value: Any) -> None:
        """Replace file `name` by `value`; see `json_files.write`."""
        json_files.write(self.path / name, value)

    def write_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Replace file `name`, an archive of plain arrays."""
        archive = io.BytesIO()
        np.savez(archive, **arrays)  # type: ignore[arg-type]
        durable.write_bytes(self.path / name, archive.getvalue())

    def append_metrics(self, *records: Mapping[str, Any]) -> None:
        """Append training records; they are on disk when this returns.

        Each holds `row`, `seed`, `epoch` and numbers, and nothing that differs between two runs
        of one config (times go to `append_timings`). Append an epoch's records BEFORE its
        checkpoint is saved: `rewind_metrics` can drop records but not restore them.
        """
        self._metrics.append(*records)

    def metrics_digest(self, row: str) -> str:
        """Hash what `row` has recorded, for `rewind_metrics` to compare with later."""
        return self._metrics.digest(row)

    def show_metrics(self) -> None:
        """Make the event files, if wanted, from the existing training records."""
        self._metrics.show()

    def append_timings(self, *records: Mapping[str, Any]) -> None:
        """Append records of wall time, which no result may depend on."""
        json_files.append_lines(self.path / TIMINGS, records)

    def rewind_metrics(self, row: str, epoch: int, digest: str | None = None) -> None:
        """Drop the records of `row` after `epoch`, the one its checkpoint was saved at.

        Args:
          row: the table row that is about to be trained.
          epoch: last epoch to keep; one below the first epoch drops the whole row.
          digest: hash of the records to be left, from an earlier `metrics_digest`; a warning is
            logged if it differs.
        """
        self._metrics.rewind(row, epoch, digest)

    def write_row(self, row: str, results: RowResults) -> None:
        """Write the results of one finished row; see `row_files.write`."""
        row_files.write(self.path, row, results)

    def read_row(self, row: str) -> RowResults | None:
        """Read the results of one row; None if there are no sound ones; see `row_files.read`."""
        return row_files.read(self.path, row)

    def write_analysis(self, row: str, **arrays: np.ndarray) -> None:
        """Write `analysis/<row>.npz`; see `row_files.write_analysis`."""
        row_files.write_analysis(self.path, row, arrays)


def open_run(
    workdir: str | os.PathLike[str],
    config: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
    *,
    tensorboard: bool = False,
) -> RunFolder:
    """Make a run folder, or reopen one to continue its run.

    Args:
      workdir: the folder; made if missing.
      config: what the run reads, as plain nested data, with the knobs of its rows in `rows`.
      defaults: the same with every knob at its default, to read a config older than a knob.
      tensorboard: whether training records are also written as TensorBoard event files.

    Raises:
      ValueError: another process has the folder open; its saved config differs for work already
        done (each such knob is named); it holds results but no config; it is not a folder, or was
        not made by this program.
    """
    path = Path(workdir).absolute()
    run = RunFolder(path, lock.take(path), tensorboard=tensorboard)
    try:
        for folder in (path, *(path / name for name in (ROWS, ANALYSIS, PLOTS))):
            durable.sweep(folder)
        for folder in (path / MODELS).glob("*"):
            durable.sweep(folder)
        _settle_config(path, config, defaults or {})
        _settle_environment(path)
        json_files.mend_lines(path / METRICS, keys=METRICS_KEYS)
        json_files.mend_lines(path / TIMINGS, keys=TIMINGS_KEYS)
        run.show_metrics()
    except BaseException:
        run.close()
        raise
    return run


def of_row(row: str) -> list[str]:
    """Name a row's files and folders in its run folder, apart from its lines in record files."""
    return [*row_files.of_row(row), f"{CHECKPOINTS}/{row}"]


def _settle_config(path: Path, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Save the config of a new folder, or refuse one that differs from the saved."""
    work = (AUDIT, METRICS, RESULTS, CHECKPOINTS, ROWS)
    made = [name for name in work if (path / name).exists()]
    if made and not (path / CONFIG).exists():
        raise ValueError(
            f"{path} holds {', '.join(made)} but no {CONFIG}: "
            "choose another --workdir or delete this folder"
        )
    if made:
        config_file.settle(path / CONFIG, config, defaults, partial(_worked, path))
    else:  # a new folder, or one whose first config was refused before any work
        json_files.write(path / CONFIG, json_files.plain(config))


def _worked(path: Path, row: str) -> bool:
    """Tell whether a row has left results or checkpoints."""
    return (path / ROWS / f"{row}.json").exists() or (path / CHECKPOINTS / row).exists()


def _settle_environment(path: Path) -> None:
    """Save the environment of a new folder; note what differs in a resumed one.

    The latest command is kept: it makes the whole table, while the first may lack rows.
    """
    now = json_files.plain(environment.describe())
    if not (path / ENVIRONMENT).exists():
        json_files.write(path / ENVIRONMENT, now)
        return
    try:
        first = environment.read(path)
        resumed = list(first.pop("resumed", []))
    except (json_files.DamagedError, TypeError) as error:
        json_files.write(path / ENVIRONMENT, now)
        _LOG.warning("%s; the environment in which this run started is no longer known", error)
        return
    changed = {k: v for k, v in now.items() if first.get(k) != v and k != "command"}
    if changed and changed not in resumed:
        _LOG.warning(
            "run folder %s was started in another environment (%s differ): "
            "results may differ from an uninterrupted run",
            path,
            ", ".join(changed),
        )
        resumed.append(changed)
    elif first["command"] == now["command"]:
        return
    latest = first | {"command": now["command"]} | ({"resumed": resumed} if resumed else {})
    json_files.write(path / ENVIRONMENT, latest)
