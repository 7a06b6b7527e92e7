"""Distances computed directly on two samples: energy distance and maximum mean discrepancy."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from dnr_jax.divergences.kernels import GRID, LEAST_BINNED_BANDWIDTH, fft_smooth, linear_bins
from dnr_jax.divergences.pooling import DivergenceSettings, Flat
from dnr_jax.settings import knob
from dnr_jax.types import Array


@dataclass(frozen=True, kw_only=True)
class MMDSettings(DivergenceSettings):
    """Settings of the maximum mean discrepancy."""

    bandwidth: float = knob(
        0.05, "of the Gaussian kernel, on [0, 1]", above=LEAST_BINNED_BANDWIDTH, at_most=1
    )


def energy_distance(settings: DivergenceSettings) -> Flat:
    """Make 2 E|X - Y| - E|X - X'| - E|Y - Y'| = 2 int (F - G)^2 (Székely and Rizzo 2013).

    Computed from the two distribution functions by sorting, in O((n + m) log(n + m)).
    """
    del settings

    def distance(
        generated: Array, generated_weights: Array, observed: Array, observed_weights: Array
    ) -> Array:
        values = jnp.concatenate([generated, observed])
        steps = jnp.concatenate([generated_weights, -observed_weights])
        order = jnp.argsort(values)
        gap = jnp.cumsum(steps[order])[:-1]
        return 2.0 * jnp.sum(gap**2 * jnp.diff(values[order]))

    return distance


def gaussian_mmd(settings: MMDSettings) -> Flat:
    """Make the squared MMD with a Gaussian kernel of height 1 (Gretton et al. 2012), binned.

    MMD^2 = E k(X, X') + E k(Y, Y') - 2 E k(X, Y) = d^T K d with d the difference of the two
    linearly binned samples; pairs of a sample with itself are included, so it is never below 0.
    """
    bandwidth = settings.bandwidth

    def distance(
        generated: Array, generated_weights: Array, observed: Array, observed_weights: Array
    ) -> Array:
        bins = linear_bins(generated, generated_weights, nodes=GRID)
        difference = bins - linear_bins(observed, observed_weights, nodes=GRID)
        return jnp.sum(difference * fft_smooth(difference, bandwidth=bandwidth))

    return distance
