"""Train one row of the table, all seeds together, from its last checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

from dnr_jax.experiment import processes, validation
from dnr_jax.experiment.compiling import Ready
from dnr_jax.experiment.first_step import FirstStep
from dnr_jax.experiment.stages import StageRun, first_states, untrained
from dnr_jax.io import checkpoints
from dnr_jax.training import sharding
from dnr_jax.training.phases import Progress, Record, StagePlan, finished, fit, start
from dnr_jax.types import Batch


def train(row: Ready) -> Progress:
    """Train a row through all stages, checkpointing after every epoch.

    Every stage has its own checkpoints and optimiser, and starts from the best parameters of the
    previous stage. A row that was already trained is restored from its checkpoints. A row that
    continues from an earlier model keeps the parameters that the last stage began with, unless an
    epoch is better on validation.

    Returns:
      The progress of the last stage.

    Raises:
      ValueError: a checkpoint is damaged beyond repair.
      NonFiniteError: a loss or gradient is not finite; the last good checkpoint is kept.
    """
    job, began = row.job, time.monotonic()
    if job.row.frozen:
        return untrained(job)
    data = job.prepared.splits["train"].batch
    if not job.row.train.stream:
        data = sharding.replicate(job.parts.layout, validation.plain(data))
    total = sum(plan.epochs for _, plan in row.stages)
    progress: Progress | None = None
    with tqdm(total=total, desc=job.row.label, unit="epoch", leave=False) as bar:
        first = FirstStep(job.row, job.run, row.made, began)
        for stage, plan in row.stages:
            progress = _train_stage(stage, first.noted(plan), progress, data, bar)
    assert progress is not None
    return progress


def _train_stage(
    stage: StageRun, plan: StagePlan, before: Progress | None, data: Batch, bar: tqdm[Any]
) -> Progress:
    job = stage.job
    progress, digest = _restore(stage, start(first_states(stage, before), len(stage.trials)))
    bar.set_description(stage.label)
    bar.update(stage.offset + int(progress.epoch) - bar.n)
    done = finished(progress, plan)
    if stage.last or not done:  # records of a stage that is done may be followed by the next one's
        job.run.rewind_metrics(job.row.key, stage.offset + int(progress.epoch), digest)
    if done:
        return progress
    validate = validation.ndcg(job) if stage.last else validation.minus_loss(job, stage.stage)
    if job.parts.graft is not None and stage.last and not int(progress.epoch):
        progress = replace(progress, best_value=validate(progress.best_params))
    return fit(progress, data, plan, validate, _saver(stage, bar))


def _restore(stage: StageRun, fresh: Progress) -> tuple[Progress, str | None]:
    """Resume from the last checkpoint, if there is one; it may come from any number of devices.

    Returns:
      The progress, and the checkpoint's note about the row's records; None without a checkpoint.
    """
    layout, folder = stage.job.parts.layout, stage.folder
    if layout.alone:
        found = checkpoints.restore(folder, "last", fresh)
        return (fresh, None) if found is None else (found[0], found[1].get("metrics"))
    slot: Callable[..., Any] = jax.ShapeDtypeStruct  # it has no types of its own
    whole = jax.tree.map(lambda leaf: slot(leaf.shape, leaf.dtype), fresh)
    found = checkpoints.restore(folder, "last", whole)
    if not processes.of_first(np.asarray(found is not None)):
        return fresh, None
    mine = processes.blank(whole) if found is None else found[0]
    placed: Progress = sharding.place(layout, processes.of_first(mine))
    return placed, None if found is None else found[1].get("metrics")


def _saver(stage: StageRun, bar: tqdm[Any]) -> Callable[[Progress, Record], None]:
    """Make the end-of-epoch callback: it saves metrics, then the checkpoint that confirms them."""
    began, key, run = time.monotonic(), stage.job.row.key, stage.job.run

    def save(progress: Progress, record: Record) -> None:
        nonlocal began
        epoch = int(progress.epoch)
        run.append_metrics(*_records(stage, epoch, record))
        progress = processes.on_host(progress)
        metadata = {"row": key, "epoch": epoch, "valid": record["valid"].tolist()}
        metadata["metrics"] = run.metrics_digest(key)
        checkpoints.save(stage.folder, "last", progress, metadata)
        now = time.monotonic()
        run.append_timings({"row": key, "epoch": stage.offset + epoch, "seconds": now - began})
        began = now
        if stage.last:
            bar.set_postfix_str(f"validation N@K {record['valid'].mean():.4f}")
        bar.update()

    return save


def _records(stage: StageRun, epoch: int, record: Record) -> list[dict[str, Any]]:
    """Turn an epoch's record into one line per trial, without terms that the row does not use."""
    row, k = stage.job.row, stage.job.plan.eval.k
    about: dict[str, Any] = {"row": row.key, "label": row.label}
    names = {"valid": f"validation N@{k}"}
    if not stage.last:
        about, names = about | {"stage": stage.stage.name}, {"valid": "validation minus loss"}
    idle = {"own"} if stage.stage.loss is None else {"direct", "denoise"}
    idle |= {"denoise"} if row.noise is None else set()
    return [
        {**about, "seed": trial.seed, "learning_rate_factor": trial.rate}
        | {"epoch": stage.offset + epoch}
        | {names.get(n, n): float(v[i]) for n, v in record.items() if n not in idle}
        for i, trial in enumerate(stage.trials)
    ]
