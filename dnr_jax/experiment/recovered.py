"""Read back the data of a finished run, for analyses of single requests."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from dnr_jax import json_files
from dnr_jax.data.store import Prepared
from dnr_jax.experiment import datasets, saved
from dnr_jax.experiment.settings import RunSettings
from dnr_jax.io import run_folder

_LOG = logging.getLogger(__name__)
_CURE = "if the run had another cache, name it to read them from there"


def run_data(
    workdir: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None
) -> Prepared:
    """Return the prepared data set of a run: requests, candidates, labels, scores, truth.

    It comes from the cache, or is rebuilt from the files that the run read.

    Args:
      workdir: the run folder.
      cache: the `cache` of its config; None = the default one.

    Raises:
      FileNotFoundError: it is not a run folder, or the files are gone.
      ValueError: the files, or the code that reads them, have changed since the run; raised before
        anything is prepared.
    """
    folder, home = Path(workdir), Path(cache or RunSettings().cache).expanduser()
    config = json_files.read(folder / run_folder.CONFIG)
    made = json_files.read(folder / run_folder.AUDIT, keys=("fingerprint",))["fingerprint"]
    plan = saved.data_plan(config, home)
    now = datasets.place(plan)
    if now.name != made:
        raise ValueError(
            f"run {folder} was made with data {made}, now they are {now.name}: the input files or "
            "the code that reads them have changed; run it anew"
        )
    if not now.exists():
        _LOG.warning("data %s is not in the cache %s and is rebuilt; %s", made, home, _CURE)
    return datasets.prepare(plan)
