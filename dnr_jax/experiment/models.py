"""Save each row's best model, with everything needed to score raw requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from dnr_jax import durable, sealed, settings
from dnr_jax.data import DATASETS, InteractionData, encoders
from dnr_jax.data.protocols import SCORES
from dnr_jax.data.store import Prepared
from dnr_jax.experiment import processes
from dnr_jax.experiment.assembly import Job
from dnr_jax.experiment.plan import Plan
from dnr_jax.io import model_files
from dnr_jax.io.run_folder import CATALOGUE, ENCODERS, MODELS, RETRIEVER, RunFolder
from dnr_jax.json_files import DamagedError
from dnr_jax.retrievers import kept
from dnr_jax.types import Params

VERSIONS = ("dnr_jax", "jax", "flax", "numpy")


def save_shared(plan: Plan, prepared: Prepared, run: RunFolder) -> None:
    """Save what a run's models share: encoders, item popularity and vectors, and the retriever."""
    _keep(run.path / ENCODERS, encoders.load, prepared.encoders.save)
    run.write_arrays(
        CATALOGUE,
        item_popularity=np.asarray(prepared.item_popularity),
        item_vectors=np.asarray(prepared.item_vectors),
    )
    if prepared.retriever:
        knobs = settings.plain(plan.data.retriever_settings)
        own = (plan.data.retriever, knobs, prepared.retriever)
        _keep(run.path / RETRIEVER, kept.read, lambda home: kept.save(home, *own))


def _keep(home: Path, read: Callable[[Path], Any], save: Callable[[Path], None]) -> None:
    """Save a folder if it is missing or damaged."""
    try:
        read(home)
    except (FileNotFoundError, NotADirectoryError, DamagedError):
        durable.remove(home)
        save(home)


def save(job: Job, records: Sequence[Mapping[str, Any]], params: Sequence[Params]) -> None:
    """Save the model of the seed that is best on validation.

    Args:
      job: the row.
      records: the row's results, for each seed and split.
      params: the parameters of each seed.
    """
    best, judged = _best(job, records)
    whole = processes.on_host(params[best])
    model_files.save(
        job.run.path / MODELS / job.row.key, _card(job, records, judged["seed"]), whole
    )


def _card(job: Job, records: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """Describe a model: how to build it, how to feed it, and what it scored."""
    row, plan, task = job.row, job.plan, job.parts.task
    return {
        "row": row.key,
        "label": row.label,
        "reranker": {"name": row.reranker.name, **settings.plain(row.reranker.settings)},
        "dtype": row.compute.dtype,
        "deployed_order": "arrange" if job.parts.arranges else "logits",
        "seed": seed,
        "task": {
            "slate_size": task.slate_size,
            "seed": task.seed,
            "sizes": dict(task.spec.sizes),
        },
        "data": {"name": plan.data.name, "fingerprint": job.prepared.fingerprint},
        "encoders_sha256": sealed.digest(job.run.path / ENCODERS / encoders.FILE),
        "catalogue_sha256": sealed.digest(job.run.path / CATALOGUE),
        "retriever_sha256": _digest(job.run.path / RETRIEVER / kept.FILE),
        "score": _score_transform(plan, job.prepared),
        "metrics": {r["split"]: r["metrics"] for r in records if r["seed"] == seed},
        "versions": {name: metadata.version(name) for name in VERSIONS},
    }


def _digest(path: Path) -> str | None:
    return sealed.digest(path) if path.exists() else None


def _score_transform(plan: Plan, prepared: Prepared) -> str | None:
    """Name the transform in `protocols.SCORES` from raw first-stage scores to x; None = none."""
    if isinstance(DATASETS[plan.data.name], InteractionData):
        return str(plan.data.retriever_settings.score)
    name = prepared.encoders.transforms.get("score")
    return name if name in SCORES else None


def _best(job: Job, records: Sequence[Mapping[str, Any]]) -> tuple[int, Mapping[str, Any]]:
    """Return number and record of the seed with the best N@K on validation; the first of equals."""
    metric = f"n@{job.plan.eval.k}"
    valid = [record for record in records if record["split"] == "valid"]
    values = np.nan_to_num([record["metrics"][metric] for record in valid], nan=-1.0)
    best = int(np.argmax(values))
    return best, valid[best]
