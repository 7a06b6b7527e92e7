"""Losses of a list of logits: each maps `(logits, labels, weights)`, all `[B, N]`, to a scalar.

Logits may be anything, NaN included, where the weight is 0. A list-wise loss is a mean over the
requests that have a positive, and 0 if none has.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.types import Array


def bce(logits: Array, labels: Array, weights: Array) -> Array:
    """Compute the mean binary cross-entropy sum w (softplus(s) - z s) / sum w; 0 without weight.

    Args:
      logits: s, `float32 [B, N]`; may be anything, NaN included, where the weight is 0.
      labels: z, `float32 [B, N]` in [0, 1].
      weights: w, `float32 [B, N]` >= 0.
    """
    chex.assert_equal_shape([logits, labels, weights])
    safe = jnp.where(weights > 0, logits, 0.0)
    safe = safe.astype(jnp.promote_types(safe.dtype, jnp.float32))
    return ops.weighted_mean(jax.nn.softplus(safe) - labels * safe, weights)


def bce_mass(labels: Array, weights: Array) -> Array:
    """Return the divisor of `bce`, sum w, as a float32 scalar."""
    del labels
    return jnp.sum(weights)


def softmax_cross_entropy(logits: Array, labels: Array, weights: Array) -> Array:
    """Compute -sum_i t_i log softmax(s)_i with targets t_i = w_i z_i / sum w z over judged entries.

    The arguments are those of `bce`.
    """
    return _cross_entropy(logits, labels * weights, weights > 0)


def attrank(logits: Array, labels: Array, weights: Array) -> Array:
    """Compute AttRank (Ai et al. 2018, arXiv 1804.05936): t_i ~ exp(z_i) over positives, else 0.

    For binary labels the target is uniform over the positives. The arguments are those of `bce`.
    """
    return _cross_entropy(
        logits, jnp.where(labels > 0, jnp.exp(labels), 0.0) * weights, weights > 0
    )


def attrank_mass(labels: Array, weights: Array) -> Array:
    """Return the divisor of `attrank`, the number of requests with a judged positive: float32."""
    return jnp.sum(jnp.any((labels > 0) & (weights > 0), axis=-1).astype(jnp.float32))


def _cross_entropy(logits: Array, gains: Array, where: Array) -> Array:
    chex.assert_equal_shape([logits, gains, where])
    total = gains.sum(axis=-1)
    log_probabilities = ops.masked_log_softmax(jnp.where(where, logits, 0.0), where)
    losses = -(gains * log_probabilities).sum(axis=-1) / jnp.where(total > 0, total, 1.0)
    return ops.weighted_mean(losses, (total > 0).astype(jnp.float32))
