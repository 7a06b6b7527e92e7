"""The results of one row of the table, sealed: files changed since are rejected.

Layout: `rows/<key>.json` (records and hashes, written last), `rows/<key>.parquet` (per-request
values), `analysis/<key>.npz` (what the plots draw) and `models/<key>/`, if the row has any.
"""

from __future__ import annotations

import logging
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dnr_jax import durable, json_files, sealed
from dnr_jax.io import model_files, per_request
from dnr_jax.io.metrics_file import METRICS, MetricsFile

ROWS = "rows"
ANALYSIS = "analysis"
MODELS = "models"
DRAWN = ("scores", "labels")  # in every analysis
_KEYS = ("rows", "files", "metrics")
# What a damaged .npz raises; a flipped bit may also ask for a password or an unknown compression.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, AttributeError, SyntaxError, RuntimeError),
    *(OverflowError, MemoryError, struct.error, zipfile.BadZipFile, zlib.error),
)
_LOG = logging.getLogger(__name__)


class RowResults(NamedTuple):
    """The results of a row: its records in `results.json`, and its per-request columns."""

    records: list[dict[str, Any]]
    columns: dict[str, np.ndarray]


def of_row(row: str) -> list[str]:
    """Name the files and the folder of one row; not every row has all of them."""
    return [
        f"{ROWS}/{row}.json",
        f"{ROWS}/{row}.parquet",
        f"{ANALYSIS}/{row}.npz",
        f"{MODELS}/{row}",
    ]


def write_analysis(run: Path, row: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the arrays that the plots of one row need to `analysis/<row>.npz`."""
    with durable.replacing(run / ANALYSIS / f"{row}.npz") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_analysis(run: Path, row: str) -> dict[str, np.ndarray] | None:
    """Read what `write_analysis` wrote; None if there is none, or, with a warning, if damaged."""
    path = run / ANALYSIS / f"{row}.npz"
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            found = dict(arrays)
        for name in DRAWN:
            found[name]
    except _UNREADABLE as error:
        _LOG.warning(
            "%s is damaged (%s) and left out of the plots: start the run again to make it anew",
            *(path, error),
        )
        return None
    return found


def write(run: Path, row: str, results: RowResults) -> None:
    """Write a finished row, its seal last: from then on, `read` finds it.

    Args:
      run: the run folder; the row's metrics and analysis are already there.
      row: key of the row.
      results: the results to write.
    """
    per_request.write(run / ROWS / f"{row}.parquet", results.columns)
    files = [f"{ROWS}/{row}.parquet", f"{ANALYSIS}/{row}.npz"]
    files += [f"{MODELS}/{row}/{name}" for name in (model_files.CARD, model_files.PARAMETERS)]
    content = {
        "rows": results.records,
        "files": {name: sealed.digest(run / name) for name in files if (run / name).exists()},
        "metrics": MetricsFile(run).digest(row),
    }
    sealed.write(run / ROWS / f"{row}.json", content)


def read(run: Path, row: str) -> RowResults | None:
    """Read a finished row; None if there is none, or, with a warning, if it was changed.

    Changed training records only cause a warning: no number of the table comes from them.

    Raises:
      DamagedError: there is a folder where a file should be.
    """
    path = run / ROWS / f"{row}.json"
    if path.is_dir():
        raise json_files.DamagedError(f"{path} is {durable.FOLDER}: move it away")
    if not path.exists():
        return None
    cure = "the row is scored again from its checkpoint"
    try:
        content = sealed.read(path, _KEYS, cure=cure)
        for name, digest in content["files"].items():
            sealed.check(run / name, digest, cure=cure)
        columns = per_request.read(path.with_suffix(".parquet"), cure=cure)
    except json_files.DamagedError as error:
        _LOG.warning("%s", error)
        return None
    if content["metrics"] != MetricsFile(run).digest(row):
        _LOG.warning(
            "%s no longer holds what was recorded while row %s was trained, and so its curves are "
            "wrong: delete %s and checkpoints/%s to train it again",
            *(run / METRICS, row, path, row),
        )
    return RowResults(content["rows"], columns)
