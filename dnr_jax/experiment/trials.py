"""The trainings that a row runs side by side, and which of them it keeps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from dnr_jax.experiment.rows import Row
from dnr_jax.training.phases import Progress
from dnr_jax.types import Array


class Trial(NamedTuple):
    """One training: a seed, and a factor on the learning rates."""

    seed: int
    rate: float


def trials_of(row: Row) -> list[Trial]:
    """List a row's trainings, factor by factor: all seeds of the first, of the second, ..."""
    return [Trial(seed, rate) for rate in row.train.learning_rate_factors for seed in row.seeds]


def best_trials(progress: Progress, row: Row) -> tuple[Progress, float]:
    """Choose the factor with the best mean validation over seeds; return its part and the factor.

    Ties go to the first factor.
    """
    factors, seeds = row.train.learning_rate_factors, len(row.seeds)
    if len(factors) == 1:
        return progress, float(factors[0])
    means = np.asarray(progress.best_value).reshape(len(factors), seeds).mean(axis=1)
    number = int(np.argmax(means))
    return _part(progress, number * seeds, seeds), float(factors[number])


@partial(jax.jit, static_argnums=2)
def _part(progress: Progress, start: Array, count: int) -> Progress:
    """Take `count` trainings from `start` on."""

    def cut(leaf: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(leaf, start, count)

    parts: Progress = jax.tree.map(cut, replace(progress, epoch=progress.best_epoch))
    return replace(parts, epoch=progress.epoch)
