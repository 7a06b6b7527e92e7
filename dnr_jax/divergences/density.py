"""KL of two Gaussian-kernel density estimates."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from dnr_jax.divergences.kernels import LEAST_BANDWIDTH, LEAST_BINNED_BANDWIDTH, log_density
from dnr_jax.divergences.pooling import DivergenceSettings, Flat
from dnr_jax.settings import knob
from dnr_jax.types import Array


@dataclass(frozen=True, kw_only=True)
class DensitySettings(DivergenceSettings):
    """Settings of the KL of binned kernel densities."""

    bandwidth: float = knob(
        0.05, "of the Gaussian kernel, on [0, 1]", above=LEAST_BINNED_BANDWIDTH, at_most=1
    )


@dataclass(frozen=True, kw_only=True)
class ExactDensitySettings(DivergenceSettings):
    """Settings of the KL of exact kernel densities."""

    bandwidth: float = knob(
        0.05, "of the Gaussian kernel, on [0, 1]", at_least=LEAST_BANDWIDTH, at_most=1
    )


def density_kl(settings: DensitySettings) -> Flat:
    """Make the KL of binned kernel densities: linear time, the default.

    At the default bandwidth its gradient has a cosine above 0.9999 with the exact one, and its
    value is off by about 1e-3 nats; at 0.001 the cosine is 0.98.
    """
    return _kl(settings.bandwidth, "binned")


def density_exact_kl(settings: ExactDensitySettings) -> Flat:
    """Make the KL of exact kernel densities: all pairs, in blocks; the reference for the others."""
    return _kl(settings.bandwidth, "exact")


def density_pallas_kl(settings: ExactDensitySettings) -> Flat:
    """Make the KL of exact kernel densities, summed by a Pallas kernel; slow on CPU."""
    return _kl(settings.bandwidth, "pallas")


def _kl(bandwidth: float, method: str) -> Flat:

    def distance(
        generated: Array, generated_weights: Array, observed: Array, observed_weights: Array
    ) -> Array:
        """Return sum_i w_i [log p_gen(x'_i) - log p_obs(x'_i)], L_x of arXiv 2509.18736, Eq. 5.

        It is a mean over the generated sample itself: 0 for equal samples, and possibly slightly
        negative for nearly equal ones.
        """
        own = log_density(
            generated, generated, generated_weights, bandwidth=bandwidth, method=method
        )
        other = log_density(
            generated, observed, observed_weights, bandwidth=bandwidth, method=method
        )
        return jnp.sum(generated_weights * (own - other))

    return distance
