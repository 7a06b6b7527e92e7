"""Gaussian-kernel sums over scores in [0, 1]: binned to a grid, exact in blocks, or by Pallas.

`log_density` is the interface to the three implementations in `LOG_DENSITIES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax.settings import find
from dnr_jax.types import Array

GRID = 4096  # nodes of the grid for the bulk
TAIL_GRID = 512  # nodes of the grid on which far tails are summed in logarithms
# Kernel sums (at most 1) below this are lost in the rounding of a float32 FFT.
FFT_FLOOR = 1e-4
# Two steps of the grid: a narrower kernel would fall between the nodes.
LEAST_BINNED_BANDWIDTH = 2.0 / (GRID - 1)
LEAST_BANDWIDTH = 1e-4  # for narrower ones exponents of far tails are too imprecise in float32
BLOCK = 128  # rows of the exact sum that are held at once
LOG_ZERO = -1e30  # finite, as -inf - -inf is NaN in gradients


class LogDensity(Protocol):
    """Log of the kernel sum sum_j w_j exp(-(a_i - b_j)^2 / 2 h^2) at `points` a: `[n]`.

    Arguments: `points` `float32 [n]`, `samples` `float32 [m]`, both in [0, 1]; `weights`
    `float32 [m]` >= 0, at least one of them above 0; `bandwidth` h, a Python number.
    """

    def __call__(
        self, points: Array, samples: Array, weights: Array, *, bandwidth: float
    ) -> Array: ...


def log_density(
    points: Array, samples: Array, weights: Array, *, bandwidth: float, method: str
) -> Array:
    """Estimate a log-density in nats by Gaussian kernels (Parzen 1962), differentiably.

    log p(a_i) = log sum_j w_j N(a_i; b_j, h^2) for weights that sum to 1.

    Args:
      points: a, `float32 [n]` in [0, 1].
      samples: b, `float32 [m]` in [0, 1].
      weights: w, `float32 [m]` >= 0 with sum 1.
      bandwidth: h, standard deviation of the kernel, at least `LEAST_BANDWIDTH`, and above
        `LEAST_BINNED_BANDWIDTH` for "binned".
      method: key of `LOG_DENSITIES`.

    Raises:
      ValueError: `method` is unknown.
    """
    sums = find("density method", method, LOG_DENSITIES)(
        points, samples, weights, bandwidth=bandwidth
    )
    return sums - math.log(bandwidth * math.sqrt(2 * math.pi))


def safe_log(values: Array) -> Array:
    """Return the logarithm, `LOG_ZERO` for 0, with finite gradients."""
    return jnp.where(values > 0, jnp.log(jnp.where(values > 0, values, 1.0)), LOG_ZERO)


# Exact: row blocks, never an n x m matrix.


def exact(points: Array, samples: Array, weights: Array, *, bandwidth: float) -> Array:
    """Sum all pairs, `BLOCK` points at a time: the reference (`LogDensity`)."""
    scale = 1.0 / (bandwidth * math.sqrt(2.0))
    return _log_sums(points * scale, samples * scale, safe_log(weights))


@jax.custom_vjp
def _log_sums(a: Array, b: Array, c: Array) -> Array:
    """Return log sum_j exp(c_j - (a_i - b_j)^2), `[n]`."""
    return _by_rows(lambda a, _: jax.nn.logsumexp(c - (a - b) ** 2, axis=1), a, a)


def _by_rows(sums: Callable[[Array, Array], Array], first: Array, second: Array) -> Array:
    """Map `sums`, from two `[BLOCK, 1]` to `[BLOCK]`, over all rows of two arrays `[n]`."""
    pad = (0, -first.shape[0] % BLOCK)
    rows = tuple(jnp.pad(values, pad).reshape(-1, BLOCK, 1) for values in (first, second))
    return jax.lax.map(lambda pair: sums(*pair), rows).reshape(-1)[: first.shape[0]]


def _log_sums_forward(a: Array, b: Array, c: Array) -> tuple[Array, tuple[Array, ...]]:
    sums = _log_sums(a, b, c)
    return sums, (a, b, c, sums)


def _log_sums_backward(saved: tuple[Array, ...], g: Array) -> tuple[Array, ...]:
    """Sum over the rows of each gradient separately, each time with one exponential per pair.

    On a CPU this is faster than one pass that also sums over columns, and a gradient that is not
    used costs nothing.
    """
    points, samples, log_weights, sums = saved

    # The log-sum stays in the exponent, which is then <= 0, so an outlier cannot overflow.
    def to_point(a: Array, log_sum: Array) -> Array:
        gap = a - samples
        return -jnp.sum(jnp.exp(log_weights - gap**2 - log_sum) * gap, axis=1)

    def to_sample(b: Array, c: Array) -> Array:
        gap = points - b
        return jnp.sum(g * jnp.exp(c - gap**2 - sums) * gap, axis=1)

    def to_log_weight(b: Array, c: Array) -> Array:
        return jnp.sum(g * jnp.exp(c - (points - b) ** 2 - sums), axis=1)

    return (
        2.0 * g * _by_rows(to_point, points, sums),
        2.0 * _by_rows(to_sample, samples, log_weights),
        _by_rows(to_log_weight, samples, log_weights),
    )


_log_sums.defvjp(_log_sums_forward, _log_sums_backward)


# Pallas: the exact sum again, by separate kernels for TPU and for NVIDIA GPUs.


def pallas(points: Array, samples: Array, weights: Array, *, bandwidth: float) -> Array:
    """Sum all pairs by a Pallas kernel; interpreted if there is neither TPU nor GPU."""
    # Imported here, as Pallas takes a second to import and is rarely used.
    from dnr_jax.divergences.pallas_sums import log_sums

    scale = 1.0 / (bandwidth * math.sqrt(2.0))
    return log_sums(points * scale, samples * scale, safe_log(weights))


# Binned: linear time in the number of samples.


def binned(points: Array, samples: Array, weights: Array, *, bandwidth: float) -> Array:
    """Bin samples linearly, smooth the grid, interpolate its logarithm (`LogDensity`).

    Linear binning and FFT after Silverman (1982) and Wand (1994). A float32 FFT loses sums below
    `FFT_FLOOR` of the largest possible one. Below that a coarser grid, summed in logarithms, takes
    over, so a generated score far from every observed one still has a useful gradient.
    """
    sums = fft_smooth(linear_bins(samples, weights, nodes=GRID), bandwidth=bandwidth)
    bulk = interpolate(jnp.log(jnp.maximum(sums, 0.5 * FFT_FLOOR)), points)
    coarse = linear_bins(samples, weights, nodes=TAIL_GRID)
    tail = interpolate(_log_smooth(coarse, bandwidth=bandwidth), points)
    return jnp.where(bulk > math.log(FFT_FLOOR), bulk, tail)


def _cells(values: Array, nodes: int) -> tuple[Array, Array]:
    """Return the left node of each value's cell, and the share of the right node.

    Only the index is clipped, not the value, so the gradient is exact at 0 and 1 too.
    """
    position = values * (nodes - 1)
    left = jnp.clip(jnp.floor(jax.lax.stop_gradient(position)), 0, nodes - 2).astype(jnp.int32)
    return left, position - left


def linear_bins(values: Array, weights: Array, *, nodes: int) -> Array:
    """Split each weight between the two nearest of `nodes` equidistant nodes on [0, 1]."""
    left, share = _cells(values, nodes)
    empty = jnp.zeros(nodes, values.dtype)
    return empty.at[left].add(weights * (1.0 - share)).at[left + 1].add(weights * share)


def interpolate(heights: Array, points: Array) -> Array:
    """Interpolate `heights` `[nodes]` on [0, 1] linearly at `points`."""
    left, share = _cells(points, heights.shape[0])
    return heights[left] * (1.0 - share) + heights[left + 1] * share


def fft_smooth(counts: Array, *, bandwidth: float) -> Array:
    """Convolve `counts` `[nodes]` on [0, 1] with a Gaussian of height 1, without wrapping."""
    nodes = counts.shape[0]
    lags = np.minimum(np.arange(2 * nodes), 2 * nodes - np.arange(2 * nodes))
    kernel = np.exp(-0.5 * (lags / (nodes - 1) / bandwidth) ** 2)
    spectrum = np.fft.rfft(kernel).real.astype(counts.dtype)
    return jnp.fft.irfft(jnp.fft.rfft(counts, 2 * nodes) * spectrum, 2 * nodes)[:nodes]


def _log_smooth(counts: Array, *, bandwidth: float) -> Array:
    """Convolve like `fft_smooth`, in logarithms: exact in far tails, quadratic in nodes."""
    grid = jnp.arange(counts.shape[0]) / (counts.shape[0] - 1)
    exponents = -0.5 * ((grid[:, None] - grid) / bandwidth) ** 2
    return jax.nn.logsumexp(exponents + safe_log(counts), axis=1)


LOG_DENSITIES: dict[str, LogDensity] = {"exact": exact, "binned": binned, "pallas": pallas}
