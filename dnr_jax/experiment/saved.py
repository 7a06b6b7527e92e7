"""The plan as a run folder stores it: everything that its rows read, and no more, in JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dnr_jax import settings
from dnr_jax.data import DATASETS, CandidateSettings, LoggedData
from dnr_jax.experiment import start
from dnr_jax.experiment.datasets import DataPlan
from dnr_jax.experiment.plan import Plan
from dnr_jax.experiment.rows import Row
from dnr_jax.experiment.sections import RETRIEVER, Chosen
from dnr_jax.experiment.settings import RunSettings
from dnr_jax.retrievers import RETRIEVERS
from dnr_jax.settings import Settings

S = TypeVar("S", bound=Settings)
Knobs = Callable[[Settings], dict[str, Any]]


def describe(plan: Plan) -> dict[str, Any]:
    """Return the plan as nested plain data, for `config.json`.

    The cache is left out because no result depends on it, and so are settings that a row does not
    read: the training of a model that learns nothing, the noise of a row without denoising.
    """
    return _describe(plan, settings.plain)


def defaults(plan: Plan) -> dict[str, Any]:
    """Return the same knobs at their defaults, which hold for runs older than the knob."""
    usual = _describe(plan, lambda knobs: settings.plain(type(knobs)()))
    rows = {key: _knobs_only(row) for key, row in usual.pop("rows").items()}
    return _knobs_only(usual) | {"seed": RunSettings().seed, "rows": rows}


def _knobs_only(section: dict[str, Any]) -> dict[str, Any]:
    """Leave out names and texts, which have no default."""
    inner = {name: part for name, part in section.items() if isinstance(part, dict)}
    return {n: {k: v for k, v in part.items() if k != "name"} for n, part in inner.items()}


def _describe(plan: Plan, plain: Knobs) -> dict[str, Any]:
    data = plan.data
    retriever = {"name": data.retriever, **plain(data.retriever_settings)}
    logged = isinstance(DATASETS[data.name], LoggedData)
    return {
        "seed": plan.seed,
        "data": _located({"name": data.name, **plain(data.settings)}),
        "candidates": plain(data.candidates),
        **({} if logged else {"retriever": retriever}),
        "eval": plain(plan.eval),
        "devices": plain(plan.devices),
        **({"start": start.digest(plan.start)} if plan.start else {}),
        "rows": {row.key: _row(row, plain) for row in plan.rows},
    }


def _located(knobs: dict[str, Any]) -> dict[str, Any]:
    """Normalise the path of the data."""
    path = knobs.get("path")
    return knobs | ({"path": str(Path(path).expanduser().resolve())} if path else {})


def _row(row: Row, plain: Knobs) -> dict[str, Any]:
    about: dict[str, Any] = {
        "model": row.model,
        "label": row.label,
        "sweep": row.sweep,
        "reranker": _chosen(row.reranker, plain),
        "compute": plain(row.compute),
    }
    about |= {"frozen": True} if row.frozen else {}
    return about | (_training(row, plain) if row.trains else {})


def _training(row: Row, plain: Knobs) -> dict[str, Any]:
    objective, optim = plain(row.objective), plain(row.optim)
    unread = [] if row.noise else ["lambda_m"]
    unread += [] if row.generator else ["lambda_adv", "lambda_x"]
    about = {
        "train": plain(row.train),
        "objective": {name: value for name, value in objective.items() if name not in unread},
        "optim": optim if row.generator else {"reranker": optim["reranker"]},
        "noise": _chosen(row.noise, plain),
        "generator": _chosen(row.generator, plain),
    }
    return about | ({"divergence": _chosen(row.divergence, plain)} if row.generator else {})


def _chosen(chosen: Chosen | None, plain: Knobs) -> dict[str, Any] | None:
    return None if chosen is None else {"name": chosen.name, **plain(chosen.settings)}


def data_plan(config: Mapping[str, Any], cache: Path) -> DataPlan:
    """Read back the data of a plan that `describe` stored.

    Args:
      config: the config of a run folder.
      cache: folder of prepared arrays, which run folders do not store.

    Raises:
      ValueError: it was written by a version with other knobs.
    """

    def read(kind: type[S], section: str) -> S:
        knobs = {name: value for name, value in config[section].items() if name != "name"}
        return settings.read(kind, knobs, f"config.{section}")

    data = DATASETS[config["data"]["name"]]
    retriever = config.get("retriever", {"name": RETRIEVER.default})
    kind = RETRIEVERS[retriever["name"]].settings
    return DataPlan(
        name=config["data"]["name"],
        settings=read(data.settings, "data"),
        candidates=settings.read(CandidateSettings, config["candidates"], "config.candidates"),
        retriever=retriever["name"],
        retriever_settings=read(kind, "retriever") if "retriever" in config else kind(),
        k=config["eval"]["k"],
        seed=config["seed"],
        cache=cache,
    )
