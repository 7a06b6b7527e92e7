"""Generators f_phi of noisy scores: heuristic families and learned ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from dnr_jax.noise.beta import beta_draw, beta_noise
from dnr_jax.noise.gaussian import gaussian_draw, gaussian_noise
from dnr_jax.noise.learned import learned_direct, learned_mix
from dnr_jax.noise.mixing import Draw
from dnr_jax.noise.resampled import resampled_draw, resampled_noise
from dnr_jax.types import Noise

NOISES: dict[str, Callable[..., Noise]] = {
    "gaussian": gaussian_noise,
    "beta": beta_noise,
    "resampled": resampled_noise,
    "learned_mix": learned_mix,
    "learned_direct": learned_direct,
}

# Fresh noise that a learned family can be fed with.
DRAWS: dict[str, Callable[..., Draw]] = {
    "gaussian": gaussian_draw,
    "beta": beta_draw,
    "resampled": resampled_draw,
}


def keywords(table: Mapping[str, Callable[..., Any]], name: str) -> tuple[str, ...]:
    """Name the keyword arguments, all required, of entry `name` of `NOISES` or `DRAWS`.

    Raises:
      ValueError: `name` is not in the table.
    """
    if name not in table:
        raise ValueError(f"unknown noise {name!r}: known are {sorted(table)}")
    return tuple(inspect.signature(table[name]).parameters)


def build(name: str, **options: Any) -> Noise:
    """Make the noise family `name` of `NOISES`.

    Raises:
      ValueError: `name` is unknown, or `options` are not exactly the family's keywords.
    """
    return _make(NOISES, name, options)


def build_draw(name: str, **options: Any) -> Draw:
    """Make the fresh noise `name` of `DRAWS`, the `base` of a learned family.

    Raises:
      ValueError: `name` is unknown, or `options` are not exactly the draw's keywords.
    """
    return _make(DRAWS, name, options)


def _make(table: Mapping[str, Callable[..., Any]], name: str, options: dict[str, Any]) -> Any:
    known = keywords(table, name)
    if set(options) != set(known):
        raise ValueError(f"noise {name!r} takes the keywords {list(known)}, not {sorted(options)}")
    return table[name](**options)
