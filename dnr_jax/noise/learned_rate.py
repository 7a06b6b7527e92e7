"""Fresh noise mixed into the observed scores at a learned rate: a generator of two numbers."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dnr_jax.noise.mixing import Draw, draw_batch
from dnr_jax.settings import Settings, knob
from dnr_jax.types import Array, Batch, Noise, Params, Task


@dataclass(frozen=True, kw_only=True)
class LearnedRateSettings(Settings):
    """Settings of the generator that learns how much of a score is replaced."""

    start: float = knob(0.5, "the rate at first, of both labels", above=0, below=1)


def learned_rate(task: Task, base: Draw, settings: LearnedRateSettings) -> Noise:
    """Make x' = clip(x + m_z (eps - x), 0, 1), with a learned rate m_z in (0, 1) for each label.

    With resampled noise, eps ~ p(x | z), both ends keep the law of x given z: m = 0 is the observed
    score, and m = 1 is a score that says no more about its candidate than the label does. So the
    adversary can only choose how informative the scores are. Not in the DNR paper.

    Args:
      task: not used.
      base: family of eps.
      settings: the initial rate.
    """
    del task

    def init(key: Array, batch: Batch) -> Params:
        del key, batch
        odds = settings.start / (1 - settings.start)
        return {"log_odds": jnp.full(2, jnp.log(odds), jnp.float32)}

    def sample(params: Params, key: Array, batch: Batch) -> Array:
        negative, positive = jax.nn.sigmoid(params["log_odds"])
        rate = jnp.where(batch.labels > 0.5, positive, negative)
        moved = batch.scores + rate * (draw_batch(base, key, batch) - batch.scores)
        return jnp.where(batch.request.where, jnp.clip(moved, 0.0, 1.0), 0.0)

    return Noise(init, sample)
