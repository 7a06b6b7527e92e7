"""The records of a finished run, read from its files: rows of results, times, values by request."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnr_jax import json_files
from dnr_jax.io import per_request as request_files
from dnr_jax.io import run_folder

ROW_KEYS = (
    "row",
    "model",
    "label",
    "trivial",
    "protocol",
    "split",
    "seed",
    "requests",
    "excluded",
    "metrics",
)
MADE_ANEW = "start the run again with the same --workdir, and it is made anew"
SPLIT = "test"


def rows(folder: Path) -> list[dict[str, Any]]:
    """Read the rows of `results.json` on the test split, one per model and seed.

    Raises:
      FileNotFoundError: the run has not finished.
      ValueError: the file is damaged, a row lacks keys, or there is none.
    """
    path = existing(folder / run_folder.RESULTS)
    every = json_files.read(path, keys=("rows",), cure=MADE_ANEW)["rows"]
    for row in every:
        missing = [key for key in ROW_KEYS if key not in row]
        if missing:
            raise ValueError(f"{path}: row {row.get('model')!r} lacks {missing}: {MADE_ANEW}")
    tested = [row for row in every if row["split"] == SPLIT]
    if not tested:
        raise ValueError(f"{path} has no row of split {SPLIT!r}")
    return tested


def rows_by_key(folder: Path) -> tuple[dict[str, tuple[str, list[int]]], int]:
    """Return each row's model and seeds, as in `per_request.parquet`, and K.

    Raises:
      FileNotFoundError, ValueError: see `rows`.
    """
    found = rows(folder)
    groups = {group[0]["row"]: group for group in by_model(found)}
    keys = {key: (own[0]["model"], [row["seed"] for row in own]) for key, own in groups.items()}
    return keys, cutoff(found[0]["metrics"], folder)


def by_model(found: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Group the rows by their models, in the order of the first ones."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        groups.setdefault(row["model"], []).append(row)
    return list(groups.values())


def cutoff(metrics: Mapping[str, Any], folder: Path) -> int:
    """Read K from the names of a row's metrics; raise `ValueError` if they do not give it."""
    found = [m[1] for name in metrics if (m := re.fullmatch(r"n@(\d+)", name))]
    if len(found) != 1:
        raise ValueError(f"{folder}: a row needs one metric 'n@K', its metrics are {list(metrics)}")
    return int(found[0])


def seconds(folder: Path, name: str) -> dict[str, float]:
    """Sum a wall time by row; an epoch that ran twice because of a kill counts twice."""
    totals: dict[str, float] = {}
    for record in json_files.read_lines(folder / run_folder.TIMINGS, keys=run_folder.TIMINGS_KEYS):
        if isinstance(record.get(name), int | float):
            totals[record["row"]] = totals.get(record["row"], 0.0) + record[name]
    return totals


def by_request(
    folder: Path, metric: str, models: Mapping[str, Sequence[int]]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read a metric of each seed for each request that has a value in every model and seed.

    Args:
      folder: the run folder.
      metric: its name.
      models: the seeds of each.

    Returns:
      The requests' numbers `int64 [R]`, and `float64 [S, R]` by model in the same order.

    Raises:
      FileNotFoundError: the run has no per-request values yet.
      ValueError: they are damaged, or lack the metric, a model or a seed.
    """
    path = existing(folder / run_folder.PER_REQUEST)
    columns = request_files.read(path, cure=MADE_ANEW)
    missing = [n for n in ("model", "seed", "request_id", metric) if n not in columns]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}, only {list(columns)}: {MADE_ANEW}")
    requests, slot = np.unique(columns["request_id"], return_inverse=True)
    tables = {}
    for name, seeds in models.items():
        tables[name] = table = np.full((len(seeds), len(requests)), np.nan)
        for number, seed in enumerate(seeds):
            use = (columns["model"] == name) & (columns["seed"] == seed)
            if not np.any(use):
                raise ValueError(
                    f"{path} has no values of model {name!r}, seed {seed}, which results.json "
                    f"lists: {MADE_ANEW}"
                )
            table[number, slot[use]] = columns[metric][use]
    complete = ~np.any(np.isnan(np.concatenate(list(tables.values()))), axis=0)
    return requests[complete], {name: table[:, complete] for name, table in tables.items()}


def existing(path: Path) -> Path:
    """Return a path; raise `FileNotFoundError` with the remedy if it does not exist."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: the run has not finished; start it again with the same --workdir"
        )
    return path
