"""Resampled scores: the non-parametric p(x | z), with no assumption about its shape (DNR-R)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax.noise.mixing import Draw, Observed, draw_batch, no_parameters
from dnr_jax.settings import Settings
from dnr_jax.types import Array, Batch, Noise, Params

# Observed scores kept per label: enough for quantiles to within 0.002.
POOL_LIMIT = 65536


@dataclass(frozen=True, kw_only=True)
class ResampledSettings(Settings):
    """Settings of the resampled family: none, as the training scores determine it."""


class Pools(NamedTuple):
    """Observed scores by label.

    Attributes:
      negatives: `float32 [m0]` in [0, 1], scores of candidates with label <= 0.5.
      positives: `float32 [m1]` in [0, 1], scores of candidates with label > 0.5.
    """

    negatives: np.ndarray
    positives: np.ndarray


def fit_pools(settings: ResampledSettings, observed: Observed, seed: int) -> Pools:
    """Collect `score_pools` of at most `POOL_LIMIT` scores each."""
    del settings
    return score_pools(observed, limit=POOL_LIMIT, seed=seed)


def score_pools(observed: Observed, *, limit: int, seed: int) -> Pools:
    """Collect the scores of negatives and of positives, from TRAINING requests only.

    Args:
      observed: the training requests.
      limit: most scores kept per label; a larger pool is subsampled at random.
      seed: seed of the subsampling.

    Raises:
      ValueError: a label has no candidate, or a score is not in [0, 1].
    """
    scores, labels, where = map(np.asarray, observed)
    keep, positive = where > 0, labels > 0.5
    random = np.random.default_rng(seed)

    def thin(chosen: np.ndarray) -> np.ndarray:
        pool = scores[chosen].astype(np.float32)
        return pool if len(pool) <= limit else random.choice(pool, limit, replace=False)

    pools = Pools(thin(keep & ~positive), thin(keep & positive))
    check_pools(pools)
    return pools


def check_pools(pools: Pools) -> None:
    """Raise `ValueError` if a pool is empty or holds a value outside [0, 1]."""
    for name, pool in zip(Pools._fields, pools, strict=True):
        if len(pool) == 0:
            raise ValueError(f"no scores of {name}: resampling needs both labels in training")
        if not ((np.asarray(pool) >= 0) & (np.asarray(pool) <= 1)).all():
            raise ValueError(
                f"scores of {name} are outside [0, 1]: scale the retriever's scores first"
            )


def resampled_draw(settings: ResampledSettings, fitted: Pools | None = None) -> Draw:
    """Make the draw: the observed score of a random candidate with the same label.

    Args:
      settings: has no knobs.
      fitted: the observed scores, from `fit_pools`.

    Raises:
      ValueError: there are no pools, one is empty or it holds a value outside [0, 1].
    """
    del settings
    if fitted is None:
        raise ValueError("resampled noise needs observed training scores to draw from")
    check_pools(fitted)
    negatives, positives = (np.asarray(pool, np.float32) for pool in fitted)

    def draw(key: Array, labels: Array) -> Array:
        keys = jax.random.split(key)
        low, high = (
            jnp.asarray(pool)[jax.random.randint(k, labels.shape, 0, len(pool))]
            for k, pool in zip(keys, (negatives, positives), strict=True)
        )
        return jnp.where(labels > 0.5, high, low)

    return draw


def resampled_noise(settings: ResampledSettings, fitted: Pools | None = None) -> Noise:
    """Make the resampled family: x' is the draw itself, without Eq. 4 and without scaling.

    With p_phi = p(x | z) the gap delta_x of Eq. 5 (arXiv 2509.18736) is 0, apart from the
    dependence between the scores of one request. Arguments and errors are those of
    `resampled_draw`.
    """
    draw = resampled_draw(settings, fitted)

    def sample(params: Params, key: Array, batch: Batch) -> Array:
        del params
        return jnp.where(batch.request.where, draw_batch(draw, key, batch), 0.0)

    return Noise(no_parameters, sample)
