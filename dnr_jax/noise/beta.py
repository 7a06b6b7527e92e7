"""Beta noise: eps ~ Beta(alpha, beta), by given shape or fitted (the paper's DNR-B)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from dnr_jax.noise import beta_sampler
from dnr_jax.noise.mixing import Draw, check_lambda_c, heuristic
from dnr_jax.types import Array, Noise

# Bounds of a fit: outside them float32 draws are exact 0s and 1s, or all alike.
MEAN_BOUNDS = (0.01, 0.99)
CONCENTRATION_BOUNDS = (0.1, 1000.0)


def beta_draw(*, alpha: float, beta: float) -> Draw:
    """Make the draw eps ~ Beta(alpha, beta) in (0, 1), independent of the label.

    Beta(1/2, 1/2) by a formula, other shapes by a table of quantiles, whose distribution function
    is off by 2e-5 or less (`beta_sampler`).

    Raises:
      ValueError: a shape parameter is not a finite number above 0.
    """
    if not (0 < alpha < np.inf and 0 < beta < np.inf):
        raise ValueError(f"Beta({alpha}, {beta}): both shape parameters must be finite and > 0")
    if alpha == 0.5 and beta == 0.5:
        return lambda key, labels: beta_sampler.draw_arcsine(key, labels.shape)
    angles = beta_sampler.angle_table(alpha, beta)

    def draw(key: Array, labels: Array) -> Array:
        return beta_sampler.draw(key, labels.shape, jnp.asarray(angles))

    return draw


def beta_noise(*, lambda_c: float, alpha: float, beta: float) -> Noise:
    """Make the Beta family (arXiv 2509.18736, Eq. 4 with eps ~ Beta(alpha, beta)).

    Raises:
      ValueError: `lambda_c` is outside (0, 1] or a shape parameter is not above 0.
    """
    return heuristic(beta_draw(alpha=alpha, beta=beta), lambda_c=lambda_c)


def observed_noise(scores: np.ndarray, labels: np.ndarray, *, lambda_c: float) -> np.ndarray:
    """Solve Eq. 4 for the noise: eps = (x - (1 - lambda_c) z) / lambda_c, before its scaling.

    Values outside [0, 1] are scores that no Beta noise of this `lambda_c` can produce.

    Args:
      scores: x, `float [...]` in [0, 1].
      labels: z, `float [...]` in [0, 1].
      lambda_c: share of noise, in (0, 1].

    Raises:
      ValueError: `lambda_c` is outside (0, 1].
    """
    check_lambda_c(lambda_c)
    x, z = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    return (x - (1.0 - lambda_c) * z) / lambda_c


def fit_beta(
    scores: np.ndarray, labels: np.ndarray, where: np.ndarray, *, lambda_c: float
) -> tuple[float, float]:
    """Fit (alpha, beta) by moments to the observed noise, clipped to [0, 1].

    With mean m and variance v the fit is alpha = m c, beta = (1 - m) c, c = m (1 - m) / v - 1;
    m and c are kept inside `MEAN_BOUNDS` and `CONCENTRATION_BOUNDS`.

    Args:
      scores: x of the training requests, `float [R, N]` in [0, 1].
      labels: z, `float [R, N]` in [0, 1].
      where: `bool [R, N]` or weights; entries that are False or 0 do not count.
      lambda_c: share of noise, in (0, 1].

    Raises:
      ValueError: no entry counts, an entry is not finite, or `lambda_c` is outside (0, 1].
    """
    keep = np.asarray(where) > 0
    noise = observed_noise(np.asarray(scores)[keep], np.asarray(labels)[keep], lambda_c=lambda_c)
    if noise.size == 0 or not np.isfinite(noise).all():
        raise ValueError(
            f"cannot fit Beta noise to {noise.size} candidates, of which "
            f"{np.isfinite(noise).sum()} are finite: give judged candidates with finite scores"
        )
    noise = np.clip(noise, 0.0, 1.0)
    mean = float(np.clip(noise.mean(), *MEAN_BOUNDS))
    # The guard only keeps 0 / 0 out; the bounds decide.
    ratio = mean * (1 - mean) / max(float(noise.var()), 1e-12) - 1.0
    concentration = float(np.clip(ratio, *CONCENTRATION_BOUNDS))
    return mean * concentration, (1 - mean) * concentration
