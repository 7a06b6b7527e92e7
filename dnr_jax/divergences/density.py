"""KL of two Gaussian-kernel density estimates."""

from __future__ import annotations

import jax.numpy as jnp

from dnr_jax.divergences.kernels import check_bandwidth, log_density
from dnr_jax.divergences.pooling import Flat
from dnr_jax.types import Array


def density_kl(*, bandwidth: float) -> Flat:
    """Make the KL of binned kernel densities: linear time, the default.

    Its gradient has a cosine above 0.9999 with the exact one; its value is some 1e-3 nats off.

    Args:
      bandwidth: of the Gaussian kernel, more than two steps of the grid (5e-4).

    Raises:
      ValueError: `bandwidth` is too small.
    """
    return _kl(bandwidth, "binned")


def density_exact_kl(*, bandwidth: float) -> Flat:
    """Make the KL of exact kernel densities: all pairs, in blocks; the oracle.

    Args:
      bandwidth: of the Gaussian kernel, above 0.

    Raises:
      ValueError: `bandwidth` is not above 0.
    """
    return _kl(bandwidth, "exact")


def density_pallas_kl(*, bandwidth: float) -> Flat:
    """Make the KL of exact kernel densities, summed by a Pallas kernel; slow on CPU.

    Args:
      bandwidth: of the Gaussian kernel, above 0.

    Raises:
      ValueError: `bandwidth` is not above 0.
    """
    return _kl(bandwidth, "pallas")


def _kl(bandwidth: float, method: str) -> Flat:
    check_bandwidth(bandwidth, method)

    def distance(
        generated: Array, generated_weights: Array, observed: Array, observed_weights: Array
    ) -> Array:
        """Return sum_i w_i [log p_gen(x'_i) - log p_obs(x'_i)], L_x of arXiv 2509.18736, Eq. 5.

        The mean over the generated sample itself: 0 for equal samples, slightly negative values
        can occur for nearly equal ones.
        """
        own = log_density(
            generated, generated, generated_weights, bandwidth=bandwidth, method=method
        )
        other = log_density(
            generated, observed, observed_weights, bandwidth=bandwidth, method=method
        )
        return jnp.sum(generated_weights * (own - other))

    return distance
