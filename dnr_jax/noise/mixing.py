"""Eq. 4: how a label and a noise draw make a noisy score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import chex
import numpy as np

from dnr_jax import ops
from dnr_jax.settings import Settings, knob
from dnr_jax.types import Array, Batch, Noise, Params


@dataclass(frozen=True, kw_only=True)
class Mixing(Settings):
    """Base of the settings of every family that mixes noise into the label."""

    lambda_c: float = knob(
        0.4, "share of the noise: x' = (1 - lambda_c) z + lambda_c eps", above=0, at_most=1
    )


class Observed(NamedTuple):
    """What a family may be fitted to: the training requests only.

    Attributes:
      scores: x, `float [R, N]` in [0, 1].
      labels: z, `float [R, N]` in [0, 1]; positive is > 0.5.
      where: `bool [R, N]` or weights; entries that are False or 0 do not count.
    """

    scores: np.ndarray
    labels: np.ndarray
    where: np.ndarray


class Draw(Protocol):
    """Draws the noise eps of one request: `float32 [N]` in the family's own support.

    Arguments: the request's own `key` and its `labels` `float32 [N]`.
    """

    def __call__(self, key: Array, labels: Array) -> Array: ...


def no_parameters(key: Array, batch: Batch) -> Params:
    """Return the parameters of a heuristic family, which has none."""
    del key, batch
    return {}


def draw_batch(draw: Draw, key: Array, batch: Batch) -> Array:
    """Draw eps `[B, N]`, each request from its own key."""
    chex.assert_equal_shape([batch.labels, batch.request.where])
    return ops.per_request(draw, key, batch.request.index, batch.labels)


def mix(labels: Array, eps: Array, where: Array, *, lambda_c: float) -> Array:
    """Compute x' = min_max((1 - lambda_c) z + lambda_c eps) per request (arXiv 2509.18736, Eq. 4).

    Because of the scaling back to [0, 1], only the ratio lambda_c / (1 - lambda_c) matters. The
    gradient is finite but uneven: the two extreme candidates of a request are pinned to 0 and 1, so
    they have no gradient of their own and receive, through the scale, those of all others. A
    constant row (one candidate) becomes 0.5 and has gradient 0.

    Args:
      labels: z, `float32 [B, N]` in [0, 1].
      eps: noise, `float32 [B, N]`.
      where: `bool [B, N]`; x' is 0 where it is False.
      lambda_c: share of noise, in (0, 1].
    """
    return ops.min_max((1.0 - lambda_c) * labels + lambda_c * eps, where)


def heuristic(draw: Draw, settings: Mixing) -> Noise:
    """Make a family without parameters: Eq. 4 with eps from `draw`."""

    def sample(params: Params, key: Array, batch: Batch) -> Array:
        del params
        eps = draw_batch(draw, key, batch)
        return mix(batch.labels, eps, batch.request.where, lambda_c=settings.lambda_c)

    return Noise(no_parameters, sample)
