"""Distances between the law of generated and of observed scores: estimators of L_x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dnr_jax.divergences import pooling
from dnr_jax.divergences.density import (
    DensitySettings,
    ExactDensitySettings,
    density_exact_kl,
    density_kl,
    density_pallas_kl,
)
from dnr_jax.divergences.histogram import HistogramSettings, histogram_kl
from dnr_jax.divergences.moments import beta_kl, gaussian_kl
from dnr_jax.divergences.pooling import DivergenceSettings
from dnr_jax.divergences.samples import MMDSettings, energy_distance, gaussian_mmd
from dnr_jax.settings import find, read
from dnr_jax.types import Divergence

__all__ = ["DIVERGENCES", "DivergenceSettings", "Entry", "build"]


class Entry(NamedTuple):
    """A divergence: its knobs, and the distance `(settings) -> Flat` between two samples."""

    settings: type[Any]
    distance: Callable[[Any], pooling.Flat]

    def build(self, settings: Any) -> Divergence:
        """Make the divergence between the scores of requests."""
        return pooling.pool(self.distance(settings), settings)


DIVERGENCES: dict[str, Entry] = {
    "density": Entry(DensitySettings, density_kl),
    "density_exact": Entry(ExactDensitySettings, density_exact_kl),
    "density_pallas": Entry(ExactDensitySettings, density_pallas_kl),
    "histogram": Entry(HistogramSettings, histogram_kl),
    "gaussian": Entry(DivergenceSettings, gaussian_kl),
    "beta": Entry(DivergenceSettings, beta_kl),
    "energy": Entry(DivergenceSettings, energy_distance),
    "mmd": Entry(MMDSettings, gaussian_mmd),
}


def build(name: str, **knobs: Any) -> Divergence:
    """Make divergence `name` of `DIVERGENCES`; a knob that is left out has its default.

    Raises:
      ValueError: `name` or a knob is unknown, or a value is out of range.
    """
    entry = find("divergence", name, DIVERGENCES)
    return entry.build(read(entry.settings, knobs, name))
