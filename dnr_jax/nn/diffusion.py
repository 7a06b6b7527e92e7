"""Gaussian diffusion: noise schedules, posterior coefficients, step embedding, approximator.

Steps count from 0: step t of T adds noise to what step t - 1 left, and step T - 1 is the noisiest.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dnr_jax.nn.attention import Attention
from dnr_jax.nn.dropout import Drop
from dnr_jax.types import Array

# Steps of T = 1000 are what the frequencies of the embedding are made for.
_FINEST = 1000.0
_LONGEST_PERIOD = 10000.0


class Schedule(NamedTuple):
    """The coefficients of a diffusion, each `float32 [S]`, of its S steps.

    Attributes:
      steps: `int32 [S]`, number of each step among the T that the model was trained on.
      kept: abar_t, the share of variance that is still x_0's.
      from_start, from_noisy: c1 and c2 of E[x_{t-1} | x_t, x_0] = c1 x_0 + c2 x_t.
      spread: standard deviation of the noise of a reverse step, sqrt(beta_t), 0 at the last one.
    """

    steps: np.ndarray
    kept: np.ndarray
    from_start: np.ndarray
    from_noisy: np.ndarray
    spread: np.ndarray


def truncated_linear(steps: int) -> np.ndarray:
    """Compute beta_t of DiffuRec's "trunc_lin", `float64 [steps]`: linear in t, ends by T.

    From `0.1 / T + 0.01` to `20 / T + 0.01`, or to `1 / T + 0.01` where that would exceed 1.
    """
    last = 20.0 / steps + 0.01
    return np.linspace(0.1 / steps + 0.01, last if last <= 1 else 1.0 / steps + 0.01, steps)


def make_schedule(betas: np.ndarray, count: int) -> Schedule:
    """Compute the coefficients of `count` evenly spaced steps (Nichol and Dhariwal 2021).

    The last of all steps is always among them; with `count` = T they are all. A skip from step r
    to step t has `beta = 1 - abar_t / abar_r` (arXiv 2102.09672, section 4).

    Args:
      betas: beta_t in (0, 1), `[T]`.
      count: S, 1 to T.
    """
    chosen = np.ceil((np.arange(count) + 1) * len(betas) / count).astype(np.int32) - 1
    kept = np.cumprod(1.0 - betas)[chosen]
    before = np.concatenate([[1.0], kept[:-1]])
    beta = 1.0 - kept / before
    from_start = np.sqrt(before) * beta / (1.0 - kept)
    from_noisy = np.sqrt(1.0 - beta) * (1.0 - before) / (1.0 - kept)
    spread = np.sqrt(beta) * (np.arange(count) > 0)
    return Schedule(chosen, *(a.astype(np.float32) for a in (kept, from_start, from_noisy, spread)))


def diffuse(start: Array, noise: Array, kept: Array) -> Array:
    """Compute x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps for `[B, D]` and `kept` `[B]`."""
    return jnp.sqrt(kept)[:, None] * start + jnp.sqrt(1.0 - kept)[:, None] * noise


class StepEmbedding(nn.Module):
    """Embed step numbers: sinusoids of `1000 t / T`, then Dense(4 D), SiLU, Dense(D).

    Attributes:
      width: D.
      total: T.
    """

    width: int
    total: int

    @nn.compact
    def __call__(self, steps: Array) -> Array:
        """Map `steps` `[B]` to `float32 [B, D]`."""
        half = (self.width + 1) // 2
        frequencies = _LONGEST_PERIOD ** (-np.arange(half, dtype=np.float32) / half)
        angles = (steps * (_FINEST / self.total))[:, None] * frequencies[None]
        waves = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
        return nn.Dense(self.width)(nn.silu(nn.Dense(4 * self.width)(waves)))


class Approximator(nn.Module):
    """Predict x_0 from x_t and a history, as DiffuRec does (Li et al. 2023, arXiv 2304.00686).

    A pre-norm transformer, `X + MHA(LN X)` and `X + FFN(LN X)` with GELU, without positions, reads
    `e_l + lambda_l * (x_t + s_t)`; its last position, normalised, is the result.

    Attributes:
      layers, heads, feed_forward: number of blocks, their heads, hidden width of their FFN.
      total: T, steps of the diffusion.
    """

    layers: int
    heads: int
    feed_forward: int
    total: int

    @nn.compact
    def __call__(
        self, noisy: Array, steps: Array, events: Array, where: Array, mix: Array, *, drop: Drop
    ) -> Array:
        """Return xhat_0 `float32 [B, D]`; 0 for an empty history.

        Args:
          noisy: x_t, `float32 [B, D]`.
          steps: t, `int32 [B]`.
          events: `float32 [B, T, D]`, latest last.
          where: `bool [B, T]`.
          mix: lambda, `float32 [B, T, D]`.
          drop: dropout.
        """
        width = noisy.shape[-1]
        disturbance = noisy + StepEmbedding(width, self.total)(steps)
        x = events + mix * disturbance[:, None]
        for _ in range(self.layers):
            normed = nn.LayerNorm()(x)
            x = x + drop(Attention(self.heads)(normed, normed, where, causal=False))
            hidden = drop(nn.gelu(nn.Dense(self.feed_forward)(nn.LayerNorm()(x))))
            x = x + drop(nn.Dense(width)(hidden))
        last = nn.LayerNorm()(drop(x[:, -1]))
        return jnp.where(where.any(axis=1, keepdims=True), last, 0.0)
