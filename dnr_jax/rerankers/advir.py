"""AdvIR-style: negatives drawn by how well they score, and adversarially perturbed states.

Park and Chang 2019, arXiv 1811.04155, propose adversarial sampling and adversarial training for
implicit feedback. The objective here is a reconstruction, as the paper's text was not available:

    L = L_w(h) + a L_w(h + delta),   delta_i = eps g_i / |g_i|,   g = dL_w / dh (held fixed)

Here h are the candidate states `[B, N, D]` (in place of the paper's embeddings) and L_w is a binary
cross-entropy. In it each negative is weighted by its probability of being drawn: the softmax of the
model's current logits over the negatives of its request. This is the expected loss under the
paper's sampling, so nothing has to be drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.nn.adapter import Encoded, require_key, wrap
from dnr_jax.nn.losses import bce
from dnr_jax.nn.pointwise import PointwiseScorer
from dnr_jax.nn.trunk import Trunk
from dnr_jax.settings import knob
from dnr_jax.types import Array, Batch, Loss, Params, Reranker, Stage, Task


@dataclass(frozen=True, kw_only=True)
class AdvIRSettings(Trunk):
    """Knobs of AdvIR, which does not use `layers`: a candidate does not see the others."""

    perturbation: float = knob(
        0.3, "eps, length of the perturbation of a candidate's state", at_least=0
    )
    adversarial_weight: float = knob(
        1.0, "a, weight of the loss at the perturbed states", at_least=0
    )


def sampling_weights(logits: Array, labels: Array, weights: Array) -> Array:
    """Weight negatives by their probability of being drawn; their total per request stays the same.

    Args:
      logits: `float32 [B, N]`; no gradient passes.
      labels: `float32 [B, N]`; a candidate is negative where its label is 0.
      weights: `float32 [B, N]` >= 0.

    Returns:
      `float32 [B, N]`; `weights` where a label is positive.
    """
    negative = (labels == 0) & (weights > 0)
    safe = jnp.where(negative, jax.lax.stop_gradient(logits), 0.0)
    chances = jnp.where(negative, jnp.exp(ops.masked_log_softmax(safe, negative)), 0.0)
    total = jnp.where(negative, weights, 0.0).sum(axis=1, keepdims=True)
    return jnp.where(negative, chances * total, weights)


def direction(gradient: Array) -> Array:
    """Scale each state's gradient `[B, N, D]` to length 1; a zero gradient stays 0."""
    length = jnp.linalg.norm(gradient, axis=-1, keepdims=True)
    return jnp.where(length > 0, gradient / jnp.where(length > 0, length, 1.0), 0.0)


def attack(reranker: Reranker, params: Params, batch: Batch) -> tuple[Array, Array]:
    """Choose negatives and directions against the model as it would be deployed, without dropout.

    Returns:
      The weights of `sampling_weights`, `float32 [B, N]`, and delta / eps, `float32 [B, N, D]`; no
      gradient passes.
    """
    memory: Encoded = reranker.encode(params, batch.request)

    def judge(states: Array) -> Array:
        return reranker.decode(params, memory._replace(inner=states), batch.scores)

    drawn = sampling_weights(judge(memory.inner), batch.labels, batch.weights)
    slope = jax.grad(lambda h: bce(judge(h), batch.labels, drawn))(memory.inner)
    return drawn, jax.lax.stop_gradient(direction(slope))


def adversarial_loss(reranker: Reranker, *, radius: float, weight: float) -> Loss:
    """Make the loss L of a wrapped module whose memory is h; eps is `radius`, a is `weight`.

    Both terms drop out the same units.
    """

    def loss(
        params: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> Array:
        require_key(key, train=train)
        keys = (None, None) if key is None else jax.random.split(key)
        drawn, worst = attack(reranker, params, batch)
        encoded: Encoded = reranker.encode(params, batch.request, key=keys[0], train=train)

        def judge(states: Array) -> Array:
            memory = encoded._replace(inner=states)
            logits = reranker.decode(params, memory, batch.scores, key=keys[1], train=train)
            return bce(logits, batch.labels, drawn)

        return judge(encoded.inner) + weight * judge(encoded.inner + radius * worst)

    return loss


def advir(task: Task, settings: AdvIRSettings) -> Reranker:
    """Build an AdvIR-style pointwise reranker (after Park and Chang 2019, arXiv 1811.04155)."""
    scorer = wrap(PointwiseScorer(task.spec, settings), dropout=settings.dropout)
    loss = adversarial_loss(
        scorer, radius=settings.perturbation, weight=settings.adversarial_weight
    )
    return scorer._replace(stages=(Stage("train", loss),))
