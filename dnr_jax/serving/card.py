"""The packed model's card: it adds provenance and confidence intervals to the run's card."""

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
_SEED = 0  # of the resampling: a model that is packed twice gets the same interval
_WORDS = ("model", "seed", "request_id")  # columns that are not metrics
_OF_MACHINE = ("commit", "python", "packages", "backend", "devices")
# The data's knobs for file locations, which mean nothing on another machine.
_PLACES = ("path", "schema", "item_file", "user_file", "known")


def completed(card: Mapping[str, Any], home: Path) -> dict[str, Any]:
    """Add the entries that only the run folder has; a packed model's card already has them.

    Args:
      card: the card of the model.
      home: its run folder, or the folder of a packed model.

    Returns:
      `card` with `packed` (time, UTC), `trained_on` (commit, versions, devices), `experiment` (its
      knobs, without file locations), `report` (of the data: schema, counts, how labels were read)
      and `intervals`: both ends of the 95 % interval of each metric's mean over the test requests.
      They cover requests only: the value of another seed may lie outside.
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
    """Return both ends by metric; empty if the row's results are gone."""
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
