"""Gaussian noise: eps ~ N(0, 1) (the paper's DNR-G)."""

from __future__ import annotations

import jax

from dnr_jax.noise.mixing import Draw, heuristic
from dnr_jax.types import Array, Noise


def gaussian_draw() -> Draw:
    """Make the draw eps ~ N(0, 1), independent of the label."""

    def draw(key: Array, labels: Array) -> Array:
        return jax.random.normal(key, labels.shape)

    return draw


def gaussian_noise(*, lambda_c: float) -> Noise:
    """Make the Gaussian family (arXiv 2509.18736, Eq. 4 with eps ~ N(0, 1)).

    Raises:
      ValueError: `lambda_c` is outside (0, 1].
    """
    return heuristic(gaussian_draw(), lambda_c=lambda_c)
