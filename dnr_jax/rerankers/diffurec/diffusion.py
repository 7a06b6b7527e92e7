"""Gaussian diffusion: noise schedules, posterior coefficients, reverse process.

Steps count from 0: step t of T adds noise to what step t - 1 left, and step T - 1 is the noisiest.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dnr_jax.nn.attention import Attention
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.layers import Dense, LayerNorm
from dnr_jax.nn.step_embedding import StepEmbedding
from dnr_jax.nn.trunk import Trunk
from dnr_jax.types import Array


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
    """Compute beta_t of DiffuRec's "trunc_lin", `float64 [steps]`, linear in t.

    It runs from `0.1 / T + 0.01` to `20 / T + 0.01`, or to `1 / T + 0.01` where that exceeds 1.
    """
    last = 20.0 / steps + 0.01
    return np.linspace(0.1 / steps + 0.01, last if last <= 1 else 1.0 / steps + 0.01, steps)


def make_schedule(betas: np.ndarray, count: int) -> Schedule:
    """Compute the coefficients of `count` evenly spaced steps (Nichol and Dhariwal 2021).

    They always include the last step; with `count` = T they are all steps. A skip from step r to
    step t has `beta = 1 - abar_t / abar_r` (arXiv 2102.09672, section 4).

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


class Approximator(nn.Module):
    """Predict x_0 from x_t and a history, as DiffuRec does (Li et al. 2023, arXiv 2304.00686).

    A pre-norm transformer, `X + MHA(LN X)` and `X + FFN(LN X)` with GELU, without positions, reads
    `e_l + lambda_l * (x_t + s_t)`, where s_t is the step's embedding. Its normalised output at the
    last position is the result.

    Attributes:
      trunk: sizes; it has `history_layers` blocks.
      total: T, steps of the diffusion.
    """

    trunk: Trunk
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
        width, layers = noisy.shape[-1], self.trunk.history_layers
        disturbance = noisy + StepEmbedding(width, self.total)(steps, events.dtype)
        x = events + mix * disturbance[:, None]
        for number in range(layers):
            keys = queries = LayerNorm()(x)
            if number == layers - 1:
                # Only the last position is used: one query instead of T.
                x, queries = x[:, -1:], keys[:, -1:]
            x = x + drop(Attention(self.trunk.heads)(queries, keys, where, causal=False))
            hidden = drop(nn.gelu(Dense(self.trunk.feed_forward)(LayerNorm()(x))))
            x = x + drop(Dense(width)(hidden))
        last = LayerNorm()(drop(x[:, 0]))
        return jnp.where(where.any(axis=1, keepdims=True), last, 0.0)


class HistoryDiffusion(nn.Module):
    """`Approximator` with random lambda, and its reverse process.

    The noise of a call is normal, `[1 + T, D]` per row: one vector for x, then one per event for
    `lambda = delta (1 + noise)`.

    Attributes:
      trunk, total: see `Approximator`.
      count: calls of the approximator for one sample, 1 to `total`.
      uncertainty: delta, mean and standard deviation of lambda, >= 0.
    """

    trunk: Trunk
    total: int
    count: int
    uncertainty: float

    def setup(self) -> None:
        """Make the approximator."""
        self.approximator = Approximator(self.trunk, self.total)

    def schedule(self, count: int) -> Schedule:
        """Return the schedule of `count` of all steps."""
        return make_schedule(truncated_linear(self.total), count)

    def predict(
        self, noisy: Array, steps: Array, events: Array, where: Array, noise: Array, *, drop: Drop
    ) -> Array:
        """Return xhat_0 `[B, D]` of `Approximator`, with lambda from `noise` `[B, 1 + T, D]`."""
        mix = self.uncertainty * (1.0 + noise[:, 1:])
        return self.approximator(noisy, steps, events, where, mix, drop=drop)

    def sample(self, keys: Array, events: Array, where: Array, *, drop: Drop) -> Array:
        """Draw x_T ~ N(0, I) and run the reverse process: `x_{t-1} = c1 xhat_0 + c2 x_t + noise`.

        The steps before the last run without gradient and without dropout.

        Args:
          keys: typed keys `[B]`, one per sample.
          events: `float32 [B, T, D]`.
          where: `bool [B, T]`.
          drop: dropout of the last step.

        Returns:
          xhat_0 of the last step, `float32 [B, D]`.
        """
        schedule = self.schedule(self.count)
        first = int(schedule.steps[0])

        def draw(step: Array | int) -> Array:
            return jax.vmap(lambda key, e: draw_noise(jax.random.fold_in(key, step), e))(
                keys, events
            )

        def back(
            module: HistoryDiffusion, noisy: Array, now: tuple[Array, ...]
        ) -> tuple[Array, None]:
            step, from_start, from_noisy, spread = now
            steps, noise = jnp.full(events.shape[0], step), draw(step)
            clean = module.predict(noisy, steps, events, where, noise, drop=identity)
            mean = from_start * jax.lax.stop_gradient(clean) + from_noisy * noisy
            return mean + spread * noise[:, 0], None

        rows = (schedule.steps, schedule.from_start, schedule.from_noisy, schedule.spread)
        backwards = tuple(jnp.asarray(a[:0:-1]) for a in rows)
        scan = nn.scan(back, variable_broadcast="params", split_rngs={"params": False})
        noisy = scan(self, draw(self.total)[:, 0], backwards)[0]
        steps = jnp.full(events.shape[0], first)
        return self.predict(noisy, steps, events, where, draw(first), drop=drop)


def draw_noise(key: Array, events: Array) -> Array:
    """Draw normal noise for x and for every event of `[T, D]`: `float32 [1 + T, D]`."""
    return jax.random.normal(key, (1 + events.shape[0], events.shape[1]))
