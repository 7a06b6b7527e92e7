"""Rescore a finished run's test split with its models, under changed first-stage scores."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax import json_files
from dnr_jax.data.store import Split
from dnr_jax.evaluation import score_split
from dnr_jax.evaluation.shifts import SHIFTS, Pool
from dnr_jax.evaluation.summary import per_request_metrics
from dnr_jax.experiment.recovered import run_data
from dnr_jax.io import checkpoints, run_folder
from dnr_jax.training.parts import part_size
from dnr_jax.training.sharding import Apply
from dnr_jax.types import Params

_LOG = logging.getLogger(__name__)


class Target(NamedTuple):
    """The test split of a run.

    Attributes:
      split: its requests.
      item_popularity: `float32 [V]`.
      k: length of the shown list.
      batch_size: requests scored at a time.
      seed: seed of the draws.
    """

    split: Split
    item_popularity: np.ndarray
    k: int
    batch_size: int
    seed: int


def target(folder: Path, cache: Path) -> Target:
    """Prepare the test split of a run folder, from the cache if it is there.

    Raises:
      FileNotFoundError: the folder is not a run folder, or its data is gone.
      ValueError: the data is not what the run was made with.
    """
    prepared = run_data(folder, cache)
    config = json_files.read(folder / run_folder.CONFIG)
    k, size = config["eval"]["k"], part_size(config["eval"]["batch_size"])
    popularity = np.asarray(prepared.item_popularity)
    return Target(prepared.splits["test"], popularity, k, size, config["seed"])


def all_seeds(folder: Path, row: str, params: Params, factor: float) -> list[Params]:
    """Read every seed's best parameters of a row, at the learning rate that it chose.

    Args:
      folder: the run folder.
      row: key of the row.
      params: parameters of the saved model, for their shapes; `{}` if it learns nothing.
      factor: factor on the learning rates.

    Returns:
      Parameters of each seed; only the saved model's if the run's checkpoints were removed.
    """
    if not jax.tree.leaves(params):
        return [params]
    train = json_files.read(folder / run_folder.CONFIG)["rows"][row]["train"]
    factors, seeds = list(train["learning_rate_factors"]), train["seeds"]
    trials = len(factors) * seeds
    like = jax.tree.map(lambda leaf: np.zeros((trials, *leaf.shape), leaf.dtype), params)
    home = folder / run_folder.CHECKPOINTS / row
    found = checkpoints.restore_part(home, "last", ".best_params", like)
    if found is None:
        _LOG.warning("row %s has no checkpoints: its saved seed alone is scored", row)
        return [params]
    first = factors.index(factor) * seeds
    stacked: Any = found[0]
    return [jax.tree.map(lambda leaf, n=n: leaf[n], stacked) for n in range(first, first + seeds)]


def under_shifts(
    order: Apply, seeds: list[Params], onto: Target
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each shift of `SHIFTS` with N@K by seed and request, `float64 [S, R]`, NaN = excluded.

    Args:
      order: the row's compiled scorer.
      seeds: parameters of each seed.
      onto: the split.
    """
    for name, scores in _shifted(onto).items():
        batch = replace(onto.split.batch, scores=jnp.asarray(scores))
        values = [_ndcg(order, params, batch, onto) for params in seeds]
        yield name, np.stack(values).astype(np.float64)


def _shifted(onto: Target) -> Mapping[str, np.ndarray]:
    batch = onto.split.batch
    pool = Pool(
        scores=jnp.asarray(batch.scores),
        where=jnp.asarray(batch.request.where),
        number=jnp.asarray(batch.request.index),
        popularity=jnp.asarray(onto.item_popularity[np.asarray(batch.request.candidates)[..., 0]]),
    )
    key = jax.random.key(onto.seed)
    return {name: np.asarray(jax.jit(s.scores)(pool, key)) for name, s in SHIFTS.items()}


def _ndcg(order: Apply, params: Params, batch: Any, onto: Target) -> np.ndarray:
    logits = np.asarray(score_split(order, params, batch, batch_size=onto.batch_size))
    judged = np.asarray(batch.request.where) & (np.asarray(batch.weights) > 0)
    found = per_request_metrics(logits, np.asarray(batch.labels), judged, k=onto.k)
    return found[f"n@{onto.k}"]
