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

q_theta is a product of Bernoulli laws over the candidates. The losses here are means over judged
candidates, so that a list's log-likelihood is -N times its mean.
"""

from __future__ import annotations

from dnr_jax.nn.losses import bce
from dnr_jax.types import Array, Batch, Divergence

Terms = dict[str, Array]


def direct_loss(logits: Array, labels: Array, weights: Array) -> Array:
    """Compute L_direct = -E[log q_theta(z | x)] from the logits of the observed scores x.

    Training pairs each z with its own x, where the identity above takes x from the marginal p_x.
    """
    return bce(logits, labels, weights)


def denoising_loss(noisy_logits: Array, labels: Array, weights: Array) -> Array:
    """Compute L_z = -E[log q_theta(z | x')] (Eq. 5) from the logits of generated scores x'."""
    return bce(noisy_logits, labels, weights)


def adversarial_loss(noisy_logits: Array, labels: Array, weights: Array) -> Array:
    """Compute L_adv = E[log q_theta(z | x')] (Eq. 5), up to its term in p(z | x').

    That term does depend on phi through x', but p(z | x) is unknown; the paper treats it as
    constant, and so it is left out of the value and of the gradient.
    """
    return -bce(noisy_logits, labels, weights)


def regulariser_loss(divergence: Divergence, generated: Array, batch: Batch) -> Array:
    """Compute L_x (Eq. 5): how far generated scores `[B, N]` are from the observed ones.

    Only judged candidates count: the label of an unjudged one says nothing.
    """
    return divergence(generated, batch.scores, labels=batch.labels, where=batch.weights > 0)


def reranker_loss(
    logits: Array, noisy_logits: Array, labels: Array, weights: Array, *, lambda_m: float
) -> tuple[Array, Terms]:
    """Compute L_theta = L_direct + lambda_m L_z; the generator is held fixed by the caller.

    Returns:
      The loss, and its terms `direct` and `denoise` before their factors.
    """
    terms = {
        "direct": direct_loss(logits, labels, weights),
        "denoise": denoising_loss(noisy_logits, labels, weights),
    }
    return terms["direct"] + lambda_m * terms["denoise"], terms


def generator_loss(
    noisy_logits: Array,
    labels: Array,
    weights: Array,
    regulariser: Array,
    *,
    lambda_adv: float,
    lambda_x: float,
) -> tuple[Array, Terms]:
    """Compute L_phi = lambda_adv L_adv + lambda_x L_x; the reranker is held fixed by the caller.

    Args:
      noisy_logits: logits of generated scores x', `float32 [B, N]`.
      labels: z, `float32 [B, N]`.
      weights: `float32 [B, N]`.
      regulariser: L_x, the scalar of `regulariser_loss`.
      lambda_adv: factor of L_adv; 1 in the paper, 0 in its ablation.
      lambda_x: factor of L_x; 0 in the paper's ablation.

    Returns:
      The loss, and its terms `adversarial` and `regulariser` before their factors.
    """
    terms = {
        "adversarial": adversarial_loss(noisy_logits, labels, weights),
        "regulariser": regulariser,
    }
    return lambda_adv * terms["adversarial"] + lambda_x * terms["regulariser"], terms
