"""Log-sums over all pairs by hand-written kernels: padding, choice of platform, gradient."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from dnr_jax.divergences import pallas_gpu, pallas_tiles
from dnr_jax.types import Array

LOG_ZERO = -1e30  # log-weight of padding: finite, as 0 * inf is NaN in gradients
PAD = max(pallas_tiles.ROWS, pallas_tiles.COLUMNS, pallas_gpu.ROWS)


@jax.custom_vjp
def log_sums(a: Array, b: Array, c: Array) -> Array:
    """Return log sum_j exp(c_j - (a_i - b_j)^2), differentiable in all three.

    Runs as a Pallas kernel on TPU, as a Mosaic GPU kernel on CUDA, and interpreted elsewhere.

    Args:
      a: `float32 [n]`.
      b: `float32 [m]`.
      c: `float32 [m]`, at most 0.
    """
    sums = jax.lax.platform_dependent(
        _pad(a, 0.0),
        _pad(b, 0.0),
        _pad(c, LOG_ZERO),
        tpu=partial(pallas_tiles.log_sums, interpret=False),
        cuda=pallas_gpu.log_sums,
        default=partial(pallas_tiles.log_sums, interpret=True),
    )
    return sums[: a.shape[0]]


def _pulls(*arrays: Array) -> tuple[Array, Array]:
    return jax.lax.platform_dependent(
        *arrays,
        tpu=partial(pallas_tiles.pulls, interpret=False),
        cuda=pallas_gpu.pulls,
        default=partial(pallas_tiles.pulls, interpret=True),
    )


def _pad(values: Array, fill: float) -> Array:
    return jnp.pad(values, (0, -values.shape[0] % PAD), constant_values=fill)


def _forward(a: Array, b: Array, c: Array) -> tuple[Array, tuple[Array, ...]]:
    sums = log_sums(a, b, c)
    return sums, (a, b, c, sums)


def _backward(saved: tuple[Array, ...], g: Array) -> tuple[Array, ...]:
    """Weight pairs by e_ij = exp(c_j - (a_i - b_j)^2 - sums_i), whose exponent is <= 0.

    d/da_i = -2 g_i sum_j e_ij (a_i - b_j);  d/db_j = -2 sum_i g_i e_ij (b_j - a_i);
    d/dc_j = sum_i g_i e_ij.
    """
    a, b, c, sums = saved
    a_rows, lowered, g_rows = _pad(a, 0.0), _pad(-sums, 0.0), _pad(g, 0.0)
    b_rows, c_rows = _pad(b, 0.0), _pad(c, LOG_ZERO)
    _, to_a = _pulls(a_rows, lowered, b_rows, c_rows, jnp.ones_like(b_rows))
    to_c, to_b = _pulls(b_rows, c_rows, a_rows, lowered, g_rows)
    n, m = a.shape[0], b.shape[0]
    return -2.0 * g * to_a[:n], -2.0 * to_b[:m], to_c[:m]


log_sums.defvjp(_forward, _backward)
