"""Rank correlation of logits with labels (or with true relevance) inside a request.

A request is valid if its labels take at least two values. Constant logits then score 0, their
expected value over random orders (SciPy returns NaN), so every model is averaged over the same
requests.
"""

from __future__ import annotations

import jax.numpy as jnp

from dnr_jax.metrics.pairs import Pairs
from dnr_jax.types import Array


def _finish(covariance: Array, variance: Array, label_variance: Array) -> tuple[Array, Array]:
    valid = label_variance > 0
    scale = jnp.sqrt(variance) * jnp.sqrt(label_variance)
    return jnp.where(valid & (scale > 0), covariance / jnp.maximum(scale, 1e-9), 0.0), valid


def spearman(pairs: Pairs) -> tuple[Array, Array]:
    """Spearman's rho: Pearson correlation of the two rankings, ties at their mean rank."""
    middle = (pairs.candidates[:, None] + 1) / 2
    rank = (pairs.above + (pairs.tied + 1) / 2 - middle) * pairs.where
    label_rank = (pairs.label_above + (pairs.label_tied + 1) / 2 - middle) * pairs.where
    covariance = jnp.sum(rank * label_rank, axis=-1)
    return _finish(covariance, jnp.sum(rank**2, axis=-1), jnp.sum(label_rank**2, axis=-1))


def kendall(pairs: Pairs) -> tuple[Array, Array]:
    """Kendall's tau-b: (concordant - discordant) over the root of the untied pairs of each side."""
    all_pairs = pairs.candidates * (pairs.candidates - 1)
    tied = jnp.sum(pairs.where * (pairs.tied - 1), axis=-1)
    label_tied = jnp.sum(pairs.where * (pairs.label_tied - 1), axis=-1)
    agreement = jnp.sum(pairs.where * pairs.agreement, axis=-1)
    return _finish(agreement, all_pairs - tied, all_pairs - label_tied)
