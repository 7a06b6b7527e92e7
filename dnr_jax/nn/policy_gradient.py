"""Losses of a policy that is rewarded for the lists it samples, on plain arrays.

Rewards carry no gradient: what a policy learns from is how the samples of one request differ.
"""

from __future__ import annotations

import jax

from dnr_jax import ops
from dnr_jax.types import Array


def reinforce_loss(rewards: Array, likelihood: Array, real: Array) -> Array:
    """Compute REINFORCE (Williams 1992) with the mean reward of a request's samples as baseline.

    Args:
      rewards: of whole lists, `float32 [B, S]`.
      likelihood: log-probability of the lists, `float32 [B, S]`.
      real: `bool [B]`, the requests that count.

    Returns:
      A float32 scalar, the mean over real requests and their samples; 0 without a real request.
    """
    fixed = jax.lax.stop_gradient(rewards)
    advantages = fixed - fixed.mean(axis=-1, keepdims=True)
    return ops.weighted_mean(-(advantages * likelihood).mean(axis=-1), real)
