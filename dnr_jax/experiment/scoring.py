"""Score and evaluate one row of the table; save what tables, tests and plots need."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.special import expit

from dnr_jax import json_files
from dnr_jax.data.store import Split
from dnr_jax.evaluation import Evaluation, compile_split, evaluate, score_split, score_stream
from dnr_jax.experiment import models
from dnr_jax.experiment.assembly import Job
from dnr_jax.experiment.rows import Row
from dnr_jax.experiment.trials import best_trials
from dnr_jax.io import per_request, row_files, run_folder
from dnr_jax.io.row_files import RowResults
from dnr_jax.io.run_folder import RunFolder
from dnr_jax.training import sharding
from dnr_jax.training.phases import Progress
from dnr_jax.types import Batch, Params

EVALUATED = ("valid", "test")
UNCALIBRATED = ("ece", "brier")
# Number of candidates in the plots of a row: enough for smooth densities.
ANALYSIS_SAMPLES = 20000


def is_done(row: Row, run: RunFolder) -> bool:
    """Tell whether the row's results are already in the run folder."""
    return run.read_row(row.key) is not None


def score_row(job: Job, progress: Progress | None) -> None:
    """Evaluate every seed of a row at its best epoch and write `rows/<key>.json`, last of all.

    Args:
      job: the row.
      progress: the result of training; None for a model that learns nothing (no parameters).
    """
    row, run = job.row, job.run
    began, rate = time.monotonic(), 1.0
    if progress is not None:
        progress, rate = best_trials(progress, row)
    records: list[dict[str, Any]] = []
    columns: list[dict[str, np.ndarray]] = []
    learned = [
        {} if progress is None else _seed(progress.best_params, number)
        for number in range(len(row.seeds))
    ]
    for number, (seed, best) in enumerate(zip(row.seeds, learned, strict=True)):
        for name in EVALUATED:
            split = job.prepared.splits[name]
            logits = _score(job, best, split)
            found = _evaluate(job, logits, split)
            extra = _extra(job, found, progress, number, best, rate)
            records.append(_record(job, name, seed, found) | extra)
            if name == "test":
                columns.append(_columns(row, seed, split, found))
            if name == "test" and number == 0 and progress is not None and not job.parts.arranges:
                run.write_analysis(row.key, **_analysis(job, progress, logits, split))
    models.save(job, records, learned)
    _write(row, run, records, columns)
    run.append_timings({"row": row.key, "scoring_seconds": time.monotonic() - began})


def write_table(rows: Sequence[str], folder: Path, data: str) -> None:
    """Write the results of finished rows as one table: per request, then the records.

    Args:
      rows: keys of the rows.
      folder: the run folder.
      data: fingerprint of the data.
    """
    found = [_finished(key, folder) for key in rows]
    names = found[0].columns
    columns = {n: np.concatenate([results.columns[n] for results in found]) for n in names}
    records = [record for results in found for record in results.records]
    per_request.write(folder / run_folder.PER_REQUEST, columns)
    json_files.write(folder / run_folder.RESULTS, {"data": data, "rows": records})


def _finished(row: str, folder: Path) -> RowResults:
    results = row_files.read(folder, row)
    if results is None:
        raise ValueError(f"row {row} of {folder} was changed meanwhile: start again")
    return results


@jax.jit
def _seed(stacked: Params, number: int) -> Params:
    return jax.tree.map(lambda leaf: leaf[number], stacked)


def _score(job: Job, params: Params, split: Split) -> np.ndarray:
    """Score a split, padded to the largest, so one compiled program serves all splits."""
    score = job.parts.score
    if job.row.train.stream:
        put = partial(sharding.put_batches, job.parts.layout)
        return score_stream(
            score,
            params,
            split.batch,
            batch_size=job.plan.eval.batch_size,
            batches=job.row.train.stream,
            put=put,
        )
    filled = jax.tree.map(partial(_fill, rows=_most_requests(job)), split.batch)
    logits = np.asarray(score_split(score, params, filled, batch_size=job.scored_at_once))
    return logits[: len(split.request_id)]


def compile_score(job: Job, params: Params) -> None:
    """Compile the program that scores the splits, for one seed's parameters of these shapes."""

    def filled(array: np.ndarray) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((_most_requests(job), *array.shape[1:]), array.dtype)

    batch = jax.tree.map(filled, job.prepared.splits["test"].batch)
    compile_split(job.parts.score, params, batch, batch_size=job.scored_at_once)


def _most_requests(job: Job) -> int:
    return max(len(job.prepared.splits[name].request_id) for name in EVALUATED)


def _fill(array: np.ndarray, rows: int) -> np.ndarray:
    """Add rows of zeros, which are empty requests."""
    return np.pad(array, [(0, rows - len(array))] + [(0, 0)] * (array.ndim - 1))


def _evaluate(job: Job, logits: np.ndarray, split: Split) -> Evaluation:
    return evaluate(
        logits,
        split,
        k=job.plan.eval.k,
        item_vectors=job.prepared.item_vectors,
        item_popularity=job.prepared.item_popularity,
    )


def _record(job: Job, split: str, seed: int, found: Evaluation) -> dict[str, Any]:
    row = job.row
    return {
        "row": row.key,
        "model": row.model,
        "label": row.label,
        "protocol": job.plan.protocol,
        "split": split,
        "seed": seed,
        "requests": found.requests,
        "excluded": found.excluded,
    } | ({"sweep": row.sweep} if row.sweep else {})


def _extra(
    job: Job,
    found: Evaluation,
    progress: Progress | None,
    number: int,
    params: Params,
    rate: float,
) -> dict[str, Any]:
    """Say how a row was trained; scores that are not log-odds have no calibration."""
    calibrated = progress is not None and job.parts.log_odds
    metrics = found.metrics | ({} if calibrated else dict.fromkeys(UNCALIBRATED, np.nan))
    record: dict[str, Any] = {"trivial": progress is None, "metrics": metrics}
    if progress is None:
        return record
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    best = int(np.asarray(progress.best_epoch)[number])
    return record | {"best_epoch": best, "parameters": size, "learning_rate_factor": rate}


def _columns(row: Row, seed: int, split: Split, found: Evaluation) -> dict[str, np.ndarray]:
    count = len(split.request_id)
    return {
        "model": np.full(count, row.model, object),
        "seed": np.full(count, seed, np.int32),
        "request_id": np.asarray(split.request_id),
    } | found.per_request


def _analysis(
    job: Job, progress: Progress, logits: np.ndarray, split: Split
) -> dict[str, np.ndarray]:
    """Draw the candidates that the plots show: observed, reranked and generated scores."""
    seed, parts = job.plan.seed, job.parts
    judged = np.argwhere(np.asarray(split.batch.weights) > 0)
    random = np.random.default_rng(seed)
    count = min(ANALYSIS_SAMPLES, len(judged))
    chosen = tuple(judged[np.sort(random.choice(len(judged), count, replace=False))].T)
    arrays = {
        "scores": np.asarray(split.batch.scores),
        "labels": np.asarray(split.batch.labels),
    }
    if parts.log_odds:
        arrays["probabilities"] = expit(logits)
    batch, key = jax.tree.map(np.asarray, split.batch), jax.random.key(seed)
    if parts.heuristic is not None:
        arrays["generated_phase1"] = _generate(parts.heuristic.sample, {}, key, batch)
    if parts.generator is not None:
        phi = _seed(progress.states.params["generator"], 0)
        arrays["generated_phase2"] = _generate(parts.generator.sample, phi, key, batch)
    return {name: array[chosen].astype(np.float32) for name, array in arrays.items()}


def _generate(sample: Any, params: Params, key: jax.Array, batch: Batch) -> np.ndarray:
    return np.asarray(jax.jit(sample)(params, key, batch))


def _write(
    row: Row, run: RunFolder, records: list[dict[str, Any]], columns: list[dict[str, np.ndarray]]
) -> None:
    joined = {name: np.concatenate([c[name] for c in columns]) for name in columns[0]}
    run.write_row(row.key, RowResults(records, joined))
