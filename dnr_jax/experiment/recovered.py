"""What a finished run was made of, read back: for those who look at single requests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dnr_jax import json_files, settings
from dnr_jax.data import DATASETS, CandidateSettings
from dnr_jax.data.store import Prepared
from dnr_jax.experiment import datasets, sections
from dnr_jax.experiment.datasets import DataPlan
from dnr_jax.experiment.sections import EvalSettings, RunSettings
from dnr_jax.io import run_folder
from dnr_jax.retrievers import RETRIEVERS

_KEYS = ("seed", "data", "candidates", "eval")


def run_data(workdir: str | os.PathLike[str], cache: str | None = None) -> Prepared:
    """Return the prepared data set of a run: requests, candidates, labels, scores, truth.

    It comes from the cache, or is made again from the files that the run read.

    Args:
      workdir: the run folder.
      cache: the `cache` of its config; None = the usual one.

    Raises:
      FileNotFoundError: it is no run folder, or the files are gone.
      ValueError: the files, or the code that reads them, have changed since the run.
    """
    folder = Path(workdir)
    config = json_files.read(folder / run_folder.CONFIG, keys=_KEYS)
    known = json_files.read(folder / run_folder.AUDIT, keys=("fingerprint",))["fingerprint"]
    found = datasets.arrays(_plan(config, Path(cache or RunSettings().cache).expanduser()))
    if found.fingerprint != known:
        raise ValueError(
            f"run folder {folder} was made with data {known}, now it is {found.fingerprint}: the "
            "input files or the code that reads them have changed; run it again elsewhere"
        )
    return found


def _plan(config: dict[str, Any], cache: Path) -> DataPlan:
    """Read back what `saved.describe` says of the data."""
    name, knobs = _chosen(config["data"])
    # Logged data has a first stage of its own, and its arrays depend on no other.
    retriever, own = _chosen(config.get("retriever", {"name": sections.RETRIEVER.default}))
    return DataPlan(
        name=name,
        settings=settings.read(DATASETS[name].settings, knobs, "config.data"),
        candidates=settings.read(CandidateSettings, config["candidates"], "config.candidates"),
        retriever=retriever,
        retriever_settings=settings.read(RETRIEVERS[retriever].settings, own, "config.retriever"),
        k=settings.read(EvalSettings, config["eval"], "config.eval").k,
        seed=config["seed"],
        cache=cache,
    )


def _chosen(section: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return section["name"], {name: value for name, value in section.items() if name != "name"}
