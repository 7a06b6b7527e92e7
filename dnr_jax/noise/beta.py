"""Beta noise: eps ~ Beta(alpha, beta), with a given or a fitted shape (the paper's DNR-B)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dnr_jax.noise import beta_sampler
from dnr_jax.noise.mixing import Draw, Mixing, Observed, heuristic
from dnr_jax.settings import knob
from dnr_jax.types import Array, Noise

# Bounds of a fit: outside them float32 draws are exactly 0 or 1, or all equal.
MEAN_BOUNDS = (0.01, 0.99)
CONCENTRATION_BOUNDS = (0.1, 1000.0)
# Shapes for which the table of quantiles is tested.
LEAST_SHAPE, MOST_SHAPE = 1e-3, 1e3


@dataclass(frozen=True, kw_only=True)
class BetaSettings(Mixing):
    """Settings of the Beta family."""

    alpha: float = knob(
        0.5, "first shape of Beta(alpha, beta)", at_least=LEAST_SHAPE, at_most=MOST_SHAPE
    )
    beta: float = knob(
        0.5, "second shape of Beta(alpha, beta)", at_least=LEAST_SHAPE, at_most=MOST_SHAPE
    )
    fit: bool = knob(False, "fit both shapes to the noise of the training scores instead")


class BetaShape(NamedTuple):
    """Both shape parameters of a Beta law, > 0."""

    alpha: float
    beta: float


def beta_draw(settings: BetaSettings, fitted: BetaShape | None = None) -> Draw:
    """Make the draw eps ~ Beta(alpha, beta) in (0, 1), independent of the label.

    Beta(1/2, 1/2) is drawn by a formula, other shapes by a table of quantiles, whose distribution
    function is off by 2e-5 or less (`beta_sampler`).

    Args:
      settings: the shape, unless it is to be fitted.
      fitted: the shape from `fit_beta`, which replaces that of `settings`.

    Raises:
      ValueError: the settings ask for a fit, but `fitted` is None.
    """
    if fitted is None and settings.fit:
        raise ValueError(
            "fit is True, but there are no observed training scores to fit the shape to: pass "
            "`observed`"
        )
    alpha, beta = fitted or BetaShape(settings.alpha, settings.beta)
    if alpha == 0.5 and beta == 0.5:
        return lambda key, labels: beta_sampler.draw_arcsine(key, labels.shape)
    angles = beta_sampler.angle_table(alpha, beta)

    def draw(key: Array, labels: Array) -> Array:
        return beta_sampler.draw(key, labels.shape, jnp.asarray(angles))

    return draw


def beta_noise(settings: BetaSettings, fitted: BetaShape | None = None) -> Noise:
    """Make the Beta family (arXiv 2509.18736, Eq. 4 with eps ~ Beta(alpha, beta)); see `beta_draw`.

    Raises:
      ValueError: the settings ask for a fit, but `fitted` is None.
    """
    return heuristic(beta_draw(settings, fitted), settings)


def observed_noise(scores: np.ndarray, labels: np.ndarray, *, lambda_c: float) -> np.ndarray:
    """Solve Eq. 4, without its min-max scaling, for eps = (x - (1 - lambda_c) z) / lambda_c.

    A value outside [0, 1] belongs to a score that Beta noise with this `lambda_c` cannot produce.

    Args:
      scores: x, `float [...]` in [0, 1].
      labels: z, `float [...]` in [0, 1].
      lambda_c: share of noise, in (0, 1].
    """
    x, z = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    return (x - (1.0 - lambda_c) * z) / lambda_c


def fit_if_asked(settings: BetaSettings, observed: Observed, seed: int) -> BetaShape | None:
    """Return `fit_beta` if the settings ask for it, else None; the fit is not random."""
    del seed
    return fit_beta(observed, lambda_c=settings.lambda_c) if settings.fit else None


def fit_beta(observed: Observed, *, lambda_c: float) -> BetaShape:
    """Fit (alpha, beta) by moments to the observed noise, clipped to [0, 1].

    With mean m and variance v the fit is alpha = m c, beta = (1 - m) c, c = m (1 - m) / v - 1;
    m and c are kept inside `MEAN_BOUNDS` and `CONCENTRATION_BOUNDS`.

    Raises:
      ValueError: no entry counts, or an entry is not finite.
    """
    scores, labels, where = map(np.asarray, observed)
    keep = where > 0
    noise = observed_noise(scores[keep], labels[keep], lambda_c=lambda_c)
    if noise.size == 0 or not np.isfinite(noise).all():
        raise ValueError(
            f"cannot fit Beta noise to {noise.size} candidates, of which "
            f"{np.isfinite(noise).sum()} are finite: give judged candidates with finite scores"
        )
    noise = np.clip(noise, 0.0, 1.0)
    mean = float(np.clip(noise.mean(), *MEAN_BOUNDS))
    # The maximum only avoids 0 / 0; the bounds below decide.
    ratio = mean * (1 - mean) / max(float(noise.var()), 1e-12) - 1.0
    concentration = float(np.clip(ratio, *CONCENTRATION_BOUNDS))
    return BetaShape(mean * concentration, (1 - mean) * concentration)
