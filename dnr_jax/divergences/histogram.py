"""KL of two soft histograms."""

from __future__ import annotations

import jax.numpy as jnp

from dnr_jax.divergences.kernels import linear_bins
from dnr_jax.divergences.pooling import Flat
from dnr_jax.types import Array


def histogram_kl(*, bins: int, smoothing: float) -> Flat:
    """Make sum_k p_k log(p_k / q_k) over triangular bins, differentiable in the scores.

    Args:
      bins: number of bins on [0, 1], 2 or more.
      smoothing: share of the uniform law mixed into both histograms, in (0, 1); it bounds the KL
        by log(bins / smoothing).

    Raises:
      ValueError: an argument is out of range.
    """
    if bins < 2 or not 0 < smoothing < 1:
        raise ValueError(
            f"histogram of {bins} bins with smoothing {smoothing}: "
            "needs 2 bins or more and a smoothing in (0, 1)"
        )

    def histogram(values: Array, weights: Array) -> Array:
        return (1 - smoothing) * linear_bins(values, weights, nodes=bins) + smoothing / bins

    def distance(
        generated: Array, generated_weights: Array, observed: Array, observed_weights: Array
    ) -> Array:
        p = histogram(generated, generated_weights)
        q = histogram(observed, observed_weights)
        return jnp.sum(p * (jnp.log(p) - jnp.log(q)))

    return distance
