"""Distances between the law of generated and of observed scores: estimators of L_x."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from dnr_jax.divergences import pooling
from dnr_jax.divergences.density import density_exact_kl, density_kl, density_pallas_kl
from dnr_jax.divergences.histogram import histogram_kl
from dnr_jax.divergences.moments import beta_kl, gaussian_kl
from dnr_jax.divergences.samples import energy_distance, gaussian_mmd
from dnr_jax.types import Divergence

DIVERGENCES: dict[str, Callable[..., pooling.Flat]] = {
    "density": density_kl,
    "density_exact": density_exact_kl,
    "density_pallas": density_pallas_kl,
    "histogram": histogram_kl,
    "gaussian": gaussian_kl,
    "beta": beta_kl,
    "energy": energy_distance,
    "mmd": gaussian_mmd,
}


def keywords(name: str) -> tuple[str, ...]:
    """Name the options, all required, of divergence `name`, `conditional` apart.

    Raises:
      ValueError: `name` is not in `DIVERGENCES`.
    """
    if name not in DIVERGENCES:
        raise ValueError(f"unknown divergence {name!r}: known are {sorted(DIVERGENCES)}")
    return tuple(inspect.signature(DIVERGENCES[name]).parameters)


def build(name: str, *, conditional: bool, **options: Any) -> Divergence:
    """Make divergence `name` of `DIVERGENCES`.

    Args:
      name: key of the table.
      conditional: compare positives and negatives apart (`pooling.conditional`).
      **options: exactly the keywords of the divergence.

    Raises:
      ValueError: `name` is unknown, or `options` are not exactly the divergence's keywords.
    """
    known = keywords(name)
    if set(options) != set(known):
        raise ValueError(
            f"divergence {name!r} takes conditional and {list(known)}, not {sorted(options)}"
        )
    distance = DIVERGENCES[name](**options)
    return pooling.conditional(distance) if conditional else pooling.pooled(distance)
