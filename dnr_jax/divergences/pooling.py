"""From scores of requests to two weighted samples of numbers, and back to one scalar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import chex
import jax
import jax.numpy as jnp

from dnr_jax.settings import Settings, knob
from dnr_jax.types import Array, Divergence


@dataclass(frozen=True, kw_only=True)
class DivergenceSettings(Settings):
    """Base of the settings of every divergence."""

    conditional: bool = knob(False, "compare positives and negatives separately")
    score_bins: int = knob(
        1,
        "if conditional: bins of the observed score, compared separately too",
        at_least=1,
        at_most=100,
    )

    def check(self) -> None:
        """Refuse bins that would not be used."""
        if self.score_bins > 1 and not self.conditional:
            raise ValueError(
                f"score_bins is {self.score_bins}, which only a conditional divergence reads: "
                "set conditional=True too"
            )


class Flat(Protocol):
    """A distance between two weighted samples, a float32 scalar.

    Arguments: `generated` `float32 [n]`, `generated_weights` `float32 [n]`, `observed`
    `float32 [m]`, `observed_weights` `float32 [m]`. Values are in [0, 1]; weights are >= 0 and
    each set sums to 1. Values of weight 0 are finite and do not count.
    """

    def __call__(
        self,
        generated: Array,
        generated_weights: Array,
        observed: Array,
        observed_weights: Array,
    ) -> Array: ...


def pool(distance: Flat, settings: DivergenceSettings) -> Divergence:
    """Compare all candidates at once, per label, or per label and bin of scores."""
    if settings.score_bins > 1:
        return binned(distance, settings.score_bins)
    return conditional(distance) if settings.conditional else pooled(distance)


def pooled(distance: Flat) -> Divergence:
    """Compare the scores of all candidates at once.

    This reads L_x = KL(p_phi(x | z) || p_x) (arXiv 2509.18736, Eq. 5) as a marginal: the labels are
    pooled on both sides, so a KL is at most the mean of L_x over z.
    """

    def divergence(generated: Array, observed: Array, *, labels: Array, where: Array) -> Array:
        chex.assert_equal_shape([generated, observed, labels, where])
        return _compare(distance, generated, observed, where)

    return divergence


def conditional(distance: Flat) -> Divergence:
    """Compare positives with positives and negatives with negatives, and average the two.

    Each label has weight 1/2 however rare it is, as positives would hardly count otherwise; a label
    that does not occur contributes 0. With a KL this estimates KL(p_phi(x | z) || p(x | z)),
    balanced over z: -delta_x of Eq. 5 (arXiv 2509.18736), rather than the L_x of the paper.
    """

    def divergence(generated: Array, observed: Array, *, labels: Array, where: Array) -> Array:
        chex.assert_equal_shape([generated, observed, labels, where])
        positive = labels > 0.5
        return 0.5 * _compare(distance, generated, observed, where & positive) + 0.5 * _compare(
            distance, generated, observed, where & ~positive
        )

    return divergence


def binned(distance: Flat, bins: int) -> Divergence:
    """Compare candidates of the same label and of the same coarse observed score.

    The observed scores fall into `bins` bins of equal width. Each label has weight 1/2, as in
    `conditional`, shared by its bins in proportion to their candidates. With a KL this estimates
    KL(p_phi(x | z, b) || p(x | z, b)) with b the bin of a candidate's own x. So it requires the law
    of scores of each label, and also that each candidate roughly keeps its score. This is ours, not
    the paper's. A step costs one distance per label and bin.
    """

    def divergence(generated: Array, observed: Array, *, labels: Array, where: Array) -> Array:
        chex.assert_equal_shape([generated, observed, labels, where])
        place = jnp.clip(jnp.floor(observed * bins), 0, bins - 1)
        total = jnp.zeros(())
        for same in (labels > 0.5, labels <= 0.5):
            count = jnp.maximum(jnp.sum(where & same), 1)
            for number in range(bins):
                group = where & same & (place == number)
                share = 0.5 * jnp.sum(group) / count
                total = total + share * _compare(distance, generated, observed, group)
        return total

    return divergence


def _compare(distance: Flat, generated: Array, observed: Array, where: Array) -> Array:
    where = where.reshape(-1)
    count = jnp.sum(where)
    # Without a real entry all values are one placeholder, whose finite distance is replaced by 0.
    weights = jnp.where(count > 0, where, 1.0).astype(jnp.float32)
    weights = weights / jnp.sum(weights)
    x_generated, x_observed = (
        jnp.where(where, values.reshape(-1).astype(jnp.float32), 0.5)
        for values in (generated, jax.lax.stop_gradient(observed))
    )
    return jnp.where(count > 0, distance(x_generated, weights, x_observed, weights), 0.0)
