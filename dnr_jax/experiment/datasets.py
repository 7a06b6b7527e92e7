"""From a plan to prepared arrays: from real files if a path is given, else simulated ones."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnr_jax import retrievers, settings
from dnr_jax.data import (
    DATASETS,
    CandidateSettings,
    DataSettings,
    InteractionData,
    LoggedData,
    signatures,
    store,
)
from dnr_jax.data.candidates import CandidateRule
from dnr_jax.data.folders import alone
from dnr_jax.data.settings import Shape
from dnr_jax.data.store import Prepared, Writer
from dnr_jax.experiment import first_stage

_LOG = logging.getLogger(__name__)

# Left out of the recipe: files that enter by content, and the simulation, which its files show.
_PLACES = ("path", "simulate", "known")

Dataset = InteractionData | LoggedData


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """The data of a table, with everything that its arrays depend on.

    Attributes:
      name: of `DATASETS`.
      settings: of the class that its entry names.
      candidates: the protocol, one of the entry's, and its sizes.
      retriever: a name of `retrievers.RETRIEVERS`; logged data has a first stage of its own.
      retriever_settings: of the class that the retriever's entry names.
      k: length K of the shown list.
      seed: of everything random about the data.
      cache: folder of simulated files and prepared arrays.
    """

    name: str
    settings: DataSettings
    candidates: CandidateSettings
    retriever: str
    retriever_settings: Any
    k: int
    seed: int
    cache: Path


def prepare(plan: DataPlan) -> Prepared:
    """Return the prepared data set of a plan and log its content; see `arrays`."""
    prepared = arrays(plan)
    _describe(prepared)
    return prepared


def arrays(plan: DataPlan) -> Prepared:
    """Return the prepared data set of a plan, from the cache if nothing has changed.

    Raises:
      FileNotFoundError: the path or a file in it does not exist.
      ValueError: the files are not usable; see the loaders.
    """
    dataset = DATASETS[plan.name]
    path = _source(plan, dataset)
    if isinstance(dataset, LoggedData):
        dataset.check(path, plan.settings)

    def build(writer: Writer) -> None:
        _build(plan, dataset, path, writer)

    return store.prepare(_home(plan), _recipe(plan, dataset, path), build)


def place(plan: DataPlan) -> Path:
    """Return the folder of a plan's arrays, prepared or not; its name is their fingerprint.

    Raises:
      FileNotFoundError: the path or a file in it does not exist.
    """
    dataset = DATASETS[plan.name]
    recipe = _recipe(plan, dataset, _source(plan, dataset))
    return _home(plan) / signatures.fingerprint(recipe)


def _home(plan: DataPlan) -> Path:
    return plan.cache / "prepared"


def check(plan: DataPlan) -> None:
    """Refuse a plan whose files or first stage are not available; no data is read.

    Raises:
      FileNotFoundError: the path, a file in it, or a file of the first stage does not exist.
      ValueError: the files are not in the configured format, or in none that is known; or the first
        stage needs a library that is not installed.
    """
    dataset = DATASETS[plan.name]
    if isinstance(dataset, InteractionData):
        retrievers.RETRIEVERS[plan.retriever].build(plan.retriever_settings)
        plan.retriever_settings.inputs()
    if plan.settings.path:
        dataset.inputs(_source(plan, dataset), plan.settings)


def estimate(plan: DataPlan) -> list[str]:
    """Say in words what preparing the data of a plan would read, before any of it is read.

    Raises:
      FileNotFoundError: the path or a file in it does not exist.
      ValueError: the files are not usable, as far as their headers tell.
    """
    if not plan.settings.path:
        return [f"{plan.name}: config.data.path is empty, so its files would be simulated"]
    dataset = DATASETS[plan.name]
    path = _source(plan, dataset)
    files = dataset.inputs(path, plan.settings)
    size = sum(file.stat().st_size for file in files) / 2**30
    said = [f"{plan.name}: {len(files)} files, {size:.2f} GiB, in {path}"]
    if isinstance(dataset, LoggedData) and dataset.estimate:
        said += dataset.estimate(path, plan.settings)
    return said


def _recipe(plan: DataPlan, dataset: Dataset, path: Path) -> dict[str, Any]:
    """List what the arrays depend on; the location of the files is not part of it."""
    knobs = settings.plain(plan.settings)
    options: dict[str, Any] = {
        "name": plan.name,
        "settings": {n: v for n, v in knobs.items() if n not in _PLACES},
        "candidates": settings.plain(plan.candidates),
        "k": plan.k,
        "seed": plan.seed,
    }
    modules = dataset.modules
    if isinstance(dataset, InteractionData):
        options["retriever"] = [plan.retriever, settings.plain(plan.retriever_settings)]
        maker = retrievers.RETRIEVERS[plan.retriever].build
        modules += (first_stage.__name__, maker.__module__)
    inputs = dataset.inputs(path, plan.settings)
    if isinstance(dataset, InteractionData):
        inputs = [*inputs, *plan.retriever_settings.inputs()]
    return {
        "inputs": [signatures.file_signature(file) for file in inputs],
        "options": options,
        "code": signatures.code_signature(*modules),
    }


def _build(plan: DataPlan, dataset: Dataset, path: Path, writer: Writer) -> None:
    if isinstance(dataset, LoggedData):
        shape = Shape(plan.candidates.size, plan.k)
        dataset.build(writer, path, plan.settings, shape, seed=plan.seed, progress=True)
        return
    retriever = retrievers.RETRIEVERS[plan.retriever].build(plan.retriever_settings)
    first_stage.build(
        writer,
        dataset.read(path, plan.settings),
        retriever,
        CandidateRule(plan.candidates, plan.retriever_settings.score, plan.seed),
        slate=plan.k,
        history=plan.settings.history,
        folds=plan.retriever_settings.cross_fit,
        truth=dataset.truth(path, plan.settings),
    )


def _source(plan: DataPlan, dataset: Dataset) -> Path:
    """Return the folder to read: the user's own, or a simulation written once."""
    given, simulation = plan.settings.path, plan.settings.simulate
    if given:
        path = Path(given).expanduser()
        if not path.exists():
            raise FileNotFoundError(
                f"config.data.path is {given!r}, but there is no such file or folder: give "
                f"the folder of your {plan.name} download, or leave it empty to simulate"
            )
        return path
    code = signatures.code_signature(dataset.simulate.__module__)
    recipe = {"simulate": settings.plain(simulation), "code": code}
    folder = plan.cache / "simulated" / f"{plan.name}-{signatures.fingerprint(recipe)}"
    if folder.exists():
        return folder
    with alone(folder):
        if not folder.exists():
            _LOG.info("no config.data.path: simulating %s files in %s", plan.name, folder)
            dataset.simulate(folder, simulation)
    return folder


def _describe(prepared: Prepared) -> None:
    """Log a summary of what was found; the full report goes to the run folder's audit."""
    sizes = ", ".join(f"{len(s.request_id)} {name}" for name, s in prepared.splits.items())
    _LOG.info("data %s: requests %s", prepared.fingerprint, sizes)
    for finding in prepared.report.get("findings", []):
        _LOG.info("%s", finding)
    for warning in prepared.report.get("warnings", []):
        _LOG.warning("data: %s", warning)
