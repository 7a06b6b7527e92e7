"""What a packed model's card adds to that of its run: where it came from, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dnr_jax import json_files
from dnr_jax.evaluation import bootstrap
from dnr_jax.io import config_file, environment, row_files, run_folder

_SPLIT = "test"
_SEED = 0  # of the resampling: a model that is packed twice has one interval
_WORDS = ("model", "seed", "request_id")  # columns that are no metrics
_OF_MACHINE = ("commit", "python", "packages", "backend", "devices")
# Of the data's knobs, those that say where files lie: on another machine they mean nothing.
_PLACES = ("path", "schema", "item_file", "user_file", "known")


def completed(card: Mapping[str, Any], home: Path) -> dict[str, Any]:
    """Add to a card what only its run folder knows; that of a packed model has it already.

    Args:
      card: of the model.
      home: its run folder, or the folder of a packed model.

    Returns:
      `card` with `packed` (time, UTC), `trained_on` (commit, versions, devices), `experiment` (its
      knobs, but for places of files), `report` (of the data: schema, counts, how labels were read)
      and `intervals`: of each metric's mean over the test requests, both ends, 95 %. They are of
      the requests alone: another seed may lie outside.
    """
    if not (home / run_folder.CONFIG).is_file():
        return dict(card)
    key = card["row"]
    machine = json_files.read(home / run_folder.ENVIRONMENT, keys=environment.KEYS)
    config = config_file.read(home / run_folder.CONFIG)
    knobs = {name: value for name, value in config["data"].items() if name not in _PLACES}
    experiment = {**config, "data": knobs, "rows": {key: config["rows"][key]}}
    return {
        **card,
        "packed": datetime.now(UTC).isoformat(timespec="seconds"),
        "trained_on": {name: machine.get(name) for name in _OF_MACHINE},
        "experiment": experiment,
        "report": json_files.read(home / run_folder.AUDIT, keys=("data",))["data"],
        "intervals": {_SPLIT: _intervals(home, key, card["seed"])},
    }


def _intervals(run: Path, row: str, seed: int) -> dict[str, list[float]]:
    """Return both ends by metric; nothing where the row's results are gone."""
    found = row_files.read(run, row)
    if found is None:
        return {}
    own = found.columns["seed"] == seed
    columns = {
        name: values[own].astype(np.float64)
        for name, values in found.columns.items()
        if name not in _WORDS and not np.isnan(values[own].astype(np.float64)).all()
    }
    if not columns:
        return {}
    low, high = bootstrap.intervals(np.stack([*columns.values()], axis=1), seed=_SEED)
    return {name: [float(a), float(b)] for name, a, b in zip(columns, low, high, strict=True)}
