"""Generators f_phi of noisy scores: heuristic families and learned ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dnr_jax.noise.beta import BetaSettings, beta_draw, beta_noise, fit_if_asked
from dnr_jax.noise.gaussian import GaussianSettings, gaussian_draw, gaussian_noise
from dnr_jax.noise.learned import (
    BoundedSettings,
    GeneratorSettings,
    LearnedMixSettings,
    learned_bounded,
    learned_direct,
    learned_mix,
)
from dnr_jax.noise.learned_rate import LearnedRateSettings, learned_rate
from dnr_jax.noise.mixing import Draw, Mixing, Observed
from dnr_jax.noise.resampled import ResampledSettings, fit_pools, resampled_draw, resampled_noise
from dnr_jax.settings import find, read
from dnr_jax.types import Noise, Task

__all__ = [
    "GENERATORS",
    "NOISES",
    "Entry",
    "GeneratorEntry",
    "GeneratorSettings",
    "Mixing",
    "Observed",
    "build",
    "build_draw",
    "build_generator",
]


class Entry(NamedTuple):
    """A heuristic family.

    Attributes:
      settings: its knobs.
      draw: `(settings, fitted) -> Draw`, the fresh noise that a learned generator takes as input.
      build: `(settings, fitted) -> Noise`.
      fit: `(settings, observed, seed) -> fitted`, what the family learns from the training scores
        before training begins; None = nothing, and `fitted` is None.
    """

    settings: type[Any]
    draw: Callable[[Any, Any], Draw]
    build: Callable[[Any, Any], Noise]
    fit: Callable[[Any, Observed, int], Any] | None = None


class GeneratorEntry(NamedTuple):
    """A learned generator: its knobs, and `build(task, base, settings)`."""

    settings: type[Any]
    build: Callable[[Task, Draw, Any], Noise]


NOISES: dict[str, Entry] = {
    "gaussian": Entry(GaussianSettings, gaussian_draw, gaussian_noise),
    "beta": Entry(BetaSettings, beta_draw, beta_noise, fit_if_asked),
    "resampled": Entry(ResampledSettings, resampled_draw, resampled_noise, fit_pools),
}

GENERATORS: dict[str, GeneratorEntry] = {
    "learned_bounded": GeneratorEntry(BoundedSettings, learned_bounded),
    "learned_direct": GeneratorEntry(GeneratorSettings, learned_direct),
    "learned_mix": GeneratorEntry(LearnedMixSettings, learned_mix),
    "learned_rate": GeneratorEntry(LearnedRateSettings, learned_rate),
}


def build(name: str, observed: Observed | None = None, *, seed: int = 0, **knobs: Any) -> Noise:
    """Make the family `name` of `NOISES`.

    Args:
      name: key of the table.
      observed: training scores, for a family that is fitted to them.
      seed: seed of the fit.
      **knobs: the family's knobs; one that is left out has its default.

    Raises:
      ValueError: `name` or a knob is unknown, a value is out of range, or `observed` is missing.
    """
    entry = find("noise", name, NOISES)
    settings = read(entry.settings, knobs, name)
    return entry.build(settings, _fitted(entry, settings, observed, seed))


def build_draw(name: str, observed: Observed | None = None, *, seed: int = 0, **knobs: Any) -> Draw:
    """Make the fresh noise of the family `name`; arguments and errors are those of `build`."""
    entry = find("noise", name, NOISES)
    settings = read(entry.settings, knobs, name)
    return entry.draw(settings, _fitted(entry, settings, observed, seed))


def build_generator(name: str, task: Task, base: Draw, **knobs: Any) -> Noise:
    """Make the generator `name` of `GENERATORS`, whose fresh noise comes from `base`.

    Raises:
      ValueError: `name` or a knob is unknown, or a value is out of range.
    """
    entry = find("generator", name, GENERATORS)
    return entry.build(task, base, read(entry.settings, knobs, name))


def _fitted(entry: Entry, settings: Any, observed: Observed | None, seed: int) -> Any:
    if entry.fit is None or observed is None:
        return None
    return entry.fit(settings, observed, seed)
