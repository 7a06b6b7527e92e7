"""KL of two soft histograms."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from dnr_jax.divergences.kernels import linear_bins
from dnr_jax.divergences.pooling import DivergenceSettings, Flat
from dnr_jax.settings import knob
from dnr_jax.types import Array


@dataclass(frozen=True, kw_only=True)
class HistogramSettings(DivergenceSettings):
    """Settings of the KL of soft histograms."""

    bins: int = knob(64, "how many, on [0, 1]", at_least=2, at_most=65536)
    # It bounds the KL by log(bins / smoothing).
    smoothing: float = knob(
        1e-3, "share of the uniform law in both histograms", at_least=1e-9, below=1
    )


def histogram_kl(settings: HistogramSettings) -> Flat:
    """Make sum_k p_k log(p_k / q_k) over triangular bins, differentiable in the scores."""
    bins, smoothing = settings.bins, settings.smoothing

    def histogram(values: Array, weights: Array) -> Array:
        return (1 - smoothing) * linear_bins(values, weights, nodes=bins) + smoothing / bins

    def distance(
        generated: Array, generated_weights: Array, observed: Array, observed_weights: Array
    ) -> Array:
        p = histogram(generated, generated_weights)
        q = histogram(observed, observed_weights)
        return jnp.sum(p * (jnp.log(p) - jnp.log(q)))

    return distance
