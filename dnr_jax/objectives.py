"""The losses of DNR (arXiv 2509.18736) as functions of logits, labels and weights.

For one request, with p the joint law of scores x and feedback z, and p_phi(x | z) the generator:

    -log p(z) = L_direct + L_1 + L_2
      L_direct = -E_{p_x}[log q_theta(z | x)]
      L_1      =  E_{p_x}[log q_theta(z | x) - log p(z | x)]
      L_2      = -KL(p_x || p_{x|z})

    -log p(z) = L_z + L_adv + L_x + delta_x                                              (Eq. 5)
      L_z      = -E_{p_phi}[log q_theta(z | x')]
      L_adv    =  E_{p_phi}[log q_theta(z | x') - log p(z | x')]
      L_x      =  KL(p_phi || p_x)
      delta_x  = -KL(p_phi || p_{x|z}) <= 0

Under the loss "bce", q_theta is a product of Bernoulli laws over the candidates. Under
"attention_rank" it is the law of one pick among them, softmax(s). `LOSSES` holds -log q_theta of
both. The losses are means: over judged candidates, or over requests with a positive. Under "bce" a
list's log-likelihood is therefore -N times its mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.nn import losses
from dnr_jax.settings import Settings, knob
from dnr_jax.types import Array, Batch, Divergence

Terms = dict[str, Array]


class Entry(NamedTuple):
    """A loss -log q_theta(z | x), as a mean over a batch.

    Attributes:
      mean: `(logits, labels, weights)`, all `float32 [B, N]`, to a float32 scalar.
      mass: `(labels, weights)` to the float32 scalar that the mean was divided by. The mean over a
        batch is the sum of its parts' means, each weighted by the part's share of the mass.
      log_odds: whether sigmoid(logit) estimates P(z = 1 | x). It does not where adding a constant
        to all logits of a request leaves the loss unchanged.
    """

    mean: Callable[[Array, Array, Array], Array]
    mass: Callable[[Array, Array], Array]
    log_odds: bool


LOSSES: dict[str, Entry] = {
    "bce": Entry(losses.bce, losses.bce_mass, log_odds=True),
    "attention_rank": Entry(losses.attrank, losses.attrank_mass, log_odds=False),
}


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings(Settings):
    """Settings of both players' losses."""

    loss: str = knob("bce", "-log q_theta: bce | attention_rank (list-wise)", one_of=LOSSES)
    lambda_m: float = knob(
        0.5, "weight of L_z, the denoising loss; 0 = L_direct alone", at_least=0, at_most=1e3
    )
    lambda_adv: float = knob(1.0, "weight of L_adv, the adversarial loss", at_least=0, at_most=1e3)
    lambda_x: float = knob(
        1.0, "weight of L_x, the distribution regulariser", at_least=0, at_most=1e3
    )
    score_dropout: float = knob(
        0.0, "probability that L_direct sees a request with all scores 0", at_least=0, at_most=1
    )
    label_smoothing: float = knob(
        0.0, "share s of L_theta's labels: z (1 - s) + s / 2", at_least=0, below=1
    )

    def check(self) -> None:
        """Refuse smooth labels under a loss for which every label above 0 is a positive."""
        if self.label_smoothing and self.loss == "attention_rank":
            raise ValueError(
                f"label_smoothing is {self.label_smoothing}, which makes every candidate a "
                "positive under the loss 'attention_rank': set it to 0, or the loss to 'bce'"
            )


def direct_loss(logits: Array, labels: Array, weights: Array, *, loss: str) -> Array:
    """Compute L_direct = -E[log q_theta(z | x)] from the logits of the observed scores x.

    Training pairs each z with its own x, whereas the identity above draws x from the marginal p_x.
    """
    return LOSSES[loss].mean(logits, labels, weights)


def denoising_loss(noisy_logits: Array, labels: Array, weights: Array, *, loss: str) -> Array:
    """Compute L_z = -E[log q_theta(z | x')] (Eq. 5) from the logits of generated scores x'."""
    return LOSSES[loss].mean(noisy_logits, labels, weights)


def hide_scores(scores: Array, index: Array, key: Array, *, rate: float) -> Array:
    """Set all scores of a request to 0 with probability `rate`: dropout of x as a whole.

    A model trained this way ranks with and without a first stage. This is the simplest way to make
    a model rely less on x, and so the control for every more elaborate one.

    Args:
      scores: x, `float32 [B, N]`.
      index: `uint32 [B]`, the requests' own numbers, folded into their keys.
      key: random key.
      rate: the probability, in [0, 1]; 0 draws nothing.
    """
    if rate == 0:
        return scores
    keep = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate))(ops.per_request_keys(key, index))
    return jnp.where(keep[:, None], scores, 0.0)


def smooth_labels(labels: Array, *, rate: float) -> Array:
    """Move labels towards one half, z (1 - s) + s / 2 (Szegedy et al. 2016, arXiv 1512.00567)."""
    return labels if rate == 0 else labels * (1 - rate) + rate / 2


def adversarial_loss(noisy_logits: Array, labels: Array, weights: Array, *, loss: str) -> Array:
    """Compute L_adv = E[log q_theta(z | x')] (Eq. 5), up to its term in p(z | x').

    That term does depend on phi through x', but p(z | x) is unknown. The paper treats the term as
    constant, so it is left out of both value and gradient.
    """
    return -LOSSES[loss].mean(noisy_logits, labels, weights)


def regulariser_loss(divergence: Divergence, generated: Array, batch: Batch) -> Array:
    """Compute L_x (Eq. 5): how far generated scores `[B, N]` are from the observed ones.

    Only judged candidates count: the label of an unjudged one says nothing.
    """
    return divergence(generated, batch.scores, labels=batch.labels, where=batch.weights > 0)


def reranker_loss(
    logits: Array,
    noisy_logits: Array,
    labels: Array,
    weights: Array,
    *,
    settings: ObjectiveSettings,
) -> tuple[Array, Terms]:
    """Compute L_theta = L_direct + lambda_m L_z; the generator is held fixed by the caller.

    Returns:
      The loss, and its terms `direct` and `denoise` before weighting.
    """
    terms = {
        "direct": direct_loss(logits, labels, weights, loss=settings.loss),
        "denoise": denoising_loss(noisy_logits, labels, weights, loss=settings.loss),
    }
    return terms["direct"] + settings.lambda_m * terms["denoise"], terms


def generator_loss(
    noisy_logits: Array,
    labels: Array,
    weights: Array,
    regulariser: Array,
    *,
    settings: ObjectiveSettings,
) -> tuple[Array, Terms]:
    """Compute L_phi of a batch; the reranker is held fixed by the caller.

    Args:
      noisy_logits: logits of generated scores x', `float32 [B, N]`.
      labels: z, `float32 [B, N]`.
      weights: `float32 [B, N]`.
      regulariser: L_x, the scalar of `regulariser_loss`.
      settings: the loss and its weights.

    Returns:
      The loss, and its terms `adversarial` and `regulariser` before weighting.
    """
    terms = {
        "adversarial": adversarial_loss(noisy_logits, labels, weights, loss=settings.loss),
        "regulariser": regulariser,
    }
    return generator_sum(**terms, settings=settings), terms


def generator_sum(adversarial: Array, regulariser: Array, *, settings: ObjectiveSettings) -> Array:
    """Compute L_phi = lambda_adv L_adv + lambda_x L_x from both losses, or from both gradients."""
    return settings.lambda_adv * adversarial + settings.lambda_x * regulariser
