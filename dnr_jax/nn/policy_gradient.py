"""Losses of a policy that is rewarded for the lists it samples, on plain arrays.

Rewards carry no gradient: a policy learns only from differences between the samples of a request.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.types import Array


def reinforce_loss(rewards: Array, likelihood: Array, real: Array) -> Array:
    """Compute REINFORCE (Williams 1992) with the mean reward of a request's samples as baseline.

    Args:
      rewards: rewards of whole lists, `float32 [B, S]`.
      likelihood: log-probability of the lists, `float32 [B, S]`.
      real: `bool [B]`, the requests that count.

    Returns:
      A float32 scalar, the mean over real requests and their samples; 0 without a real request.
    """
    fixed = jax.lax.stop_gradient(rewards)
    advantages = fixed - fixed.mean(axis=-1, keepdims=True)
    return ops.weighted_mean(-(advantages * likelihood).mean(axis=-1), real)


def discounted_returns(rewards: Array, gamma: float) -> Array:
    """Compute `G_k = r_k + gamma G_{k+1}` along the last axis, `float32 [..., K]`."""
    distance = jnp.arange(rewards.shape[-1])[:, None] - jnp.arange(rewards.shape[-1])[None]
    # [j, k]: the weight of reward j in the return of place k, 0 if j comes before k.
    worth = jnp.where(distance >= 0, gamma ** jnp.maximum(distance, 0), 0.0)
    return rewards @ worth


def standardise(returns: Array, *, ddof: int) -> Array:
    """Compute advantages `(G - mean) / std` over a request's samples, separately per place.

    Args:
      returns: G, `float32 [B, S, ...]`, of whole lists or of each place.
      ddof: the standard deviation divides by `S - ddof`: 0, or 1 for the unbiased one.

    Returns:
      The same shape; 0 where all samples have the same return.
    """
    centred = returns - returns.mean(axis=1, keepdims=True)
    spread = returns.std(axis=1, ddof=ddof, keepdims=True)
    # Rounding errors must not be amplified to a preference.
    alike = spread <= 1e-6
    return jnp.where(alike, 0.0, centred / jnp.where(alike, 1.0, spread))


def clipped_gain(new: Array, old: Array, advantages: Array, *, clip: float) -> Array:
    """Compute PPO's gain `min(rho A, clip(rho, 1 - c, 1 + c) A)` with `rho = exp(new - old)`.

    Schulman et al. 2017, arXiv 1707.06347, Eq. 7. Beyond the clip the gain is flat in the direction
    in which A pushes: a probability that has moved that far is not moved further.

    Args:
      new: log-probabilities of the choices under the policy that learns, `float32`, any shape.
      old: those under the policy that made the choices, of the same masked softmax; held fixed.
      advantages: A, of the same shape; held fixed.
      clip: c, > 0.
    """
    old, advantages = jax.lax.stop_gradient((old, advantages))
    ratio = jnp.exp(new - old)
    return jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - clip, 1 + clip) * advantages)
