"""Gaussian noise: eps ~ N(0, 1) (the paper's DNR-G)."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from dnr_jax.noise.mixing import Draw, Mixing, heuristic
from dnr_jax.types import Array, Noise


@dataclass(frozen=True, kw_only=True)
class GaussianSettings(Mixing):
    """Settings of the Gaussian family: the share of noise alone."""


def gaussian_draw(settings: GaussianSettings, fitted: None = None) -> Draw:
    """Make the draw eps ~ N(0, 1), independent of the label; nothing is fitted."""
    del settings, fitted

    def draw(key: Array, labels: Array) -> Array:
        return jax.random.normal(key, labels.shape)

    return draw


def gaussian_noise(settings: GaussianSettings, fitted: None = None) -> Noise:
    """Make the Gaussian family (arXiv 2509.18736, Eq. 4 with eps ~ N(0, 1))."""
    return heuristic(gaussian_draw(settings, fitted), settings)
