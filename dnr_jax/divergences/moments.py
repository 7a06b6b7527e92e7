"""Closed-form KL between laws that match the mean and variance of each sample."""

from __future__ import annotations

import jax.numpy as jnp
from jax.scipy.special import betaln, digamma

from dnr_jax.divergences.pooling import DivergenceSettings, Flat
from dnr_jax.types import Array

VARIANCE_FLOOR = 1e-4  # added to every variance: a constant sample is a narrow law, not a point
SHRINK = 1e-3  # scores are moved into [SHRINK, 1 - SHRINK] before a Beta law is matched


def _moments(values: Array, weights: Array) -> tuple[Array, Array]:
    mean = jnp.sum(weights * values)
    return mean, jnp.sum(weights * (values - mean) ** 2)


def gaussian_kl(settings: DivergenceSettings) -> Flat:
    """Make KL(N(m1, v1) || N(m2, v2)) = [log(v2 / v1) + (v1 + (m1 - m2)^2) / v2 - 1] / 2."""
    del settings

    def distance(
        generated: Array, generated_weights: Array, observed: Array, observed_weights: Array
    ) -> Array:
        m1, v1 = _moments(generated, generated_weights)
        m2, v2 = _moments(observed, observed_weights)
        v1, v2 = v1 + VARIANCE_FLOOR, v2 + VARIANCE_FLOOR
        return 0.5 * (jnp.log(v2 / v1) + (v1 + (m1 - m2) ** 2) / v2 - 1.0)

    return distance


def _match_beta(values: Array, weights: Array) -> tuple[Array, Array]:
    """Match Beta(a, b) by moments: a = m c, b = (1 - m) c, c = m (1 - m) / v - 1.

    A sample inside [s, 1 - s] has v <= m (1 - m) - s (1 - s), so c stays above 0 without a clip,
    which would stop the gradient.
    """
    mean, variance = _moments(SHRINK + (1 - 2 * SHRINK) * values, weights)
    concentration = (mean * (1 - mean) - variance) / (variance + VARIANCE_FLOOR)
    return mean * concentration, (1 - mean) * concentration


def beta_kl(settings: DivergenceSettings) -> Flat:
    """Make the KL of two Beta laws, with psi the digamma function.

    KL = log B(a2, b2) - log B(a1, b1) + (a1 - a2) psi(a1) + (b1 - b2) psi(b1)
       + (a2 - a1 + b2 - b1) psi(a1 + b1).
    """
    del settings

    def distance(
        generated: Array, generated_weights: Array, observed: Array, observed_weights: Array
    ) -> Array:
        a1, b1 = _match_beta(generated, generated_weights)
        a2, b2 = _match_beta(observed, observed_weights)
        return (
            betaln(a2, b2)
            - betaln(a1, b1)
            + (a1 - a2) * digamma(a1)
            + (b1 - b2) * digamma(b1)
            + (a2 - a1 + b2 - b1) * digamma(a1 + b1)
        )

    return distance
