"""AdvIR-style: negatives drawn by how well they score, and states perturbed against the model.

Park and Chang 2019, arXiv 1811.04155, proposes adversarial sampling and adversarial training for
implicit feedback. The objective here is a reconstruction, as the paper's text was not at hand:

    L = L_w(h) + a L_w(h + delta),   delta_i = eps g_i / |g_i|,   g = dL_w / dh (held fixed)

with h the candidate states `[B, N, D]` (in place of the paper's embeddings) and L_w the binary
cross-entropy in which a candidate without a positive label counts in proportion to its chance to be
drawn as a negative, the softmax of the model's present logits over the negatives of its request.
That is the expected loss under the paper's sampling, so nothing has to be drawn.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.nn.adapter import require_key, wrap
from dnr_jax.nn.losses import bce
from dnr_jax.nn.pointwise import PointwiseScorer
from dnr_jax.nn.score_entry import ScoreUse
from dnr_jax.nn.sizes import check_heads, check_positive
from dnr_jax.types import Array, Batch, FeatureSpec, Loss, Params, Reranker, Stage


def sampling_weights(logits: Array, labels: Array, weights: Array) -> Array:
    """Weigh negatives by their chance to be drawn; a request's negatives keep their total weight.

    Args:
      logits: `float32 [B, N]`; no gradient passes.
      labels: `float32 [B, N]`, a candidate is negative where 0.
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


def adversarial_loss(reranker: Reranker, *, radius: float, weight: float) -> Loss:
    """Make L of the reranker whose `encode` returns `(h, where)`; eps is `radius`, a `weight`."""

    def loss(
        params: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> Array:
        require_key(key, train=train)
        keys = (None, None) if key is None else jax.random.split(key)
        states, where = reranker.encode(params, batch.request, key=keys[0], train=train)

        def judge(states: Array, *, train: bool) -> Array:
            memory = (states, where)
            return reranker.decode(params, memory, batch.scores, key=keys[1], train=train)

        # What the model would answer as deployed: neither draw nor direction depends on dropout.
        drawn = sampling_weights(judge(states, train=False), batch.labels, batch.weights)
        fixed = jax.lax.stop_gradient(states)
        slope = jax.grad(lambda h: bce(judge(h, train=False), batch.labels, drawn))(fixed)
        moved = states + radius * direction(jax.lax.stop_gradient(slope))
        plain, attacked = (bce(judge(h, train=train), batch.labels, drawn) for h in (states, moved))
        return plain + weight * attacked

    return loss


def advir(
    spec: FeatureSpec,
    *,
    width: int,
    heads: int,
    feed_forward: int,
    dropout: float,
    history_layers: int,
    perturbation: float,
    adversarial_weight: float,
    score_entry: str,
    score_place: str,
) -> Reranker:
    """Build an AdvIR-style pointwise reranker (after Park and Chang 2019, arXiv 1811.04155).

    Args:
      spec: column names and vocabulary sizes.
      width: D, a multiple of `heads`, of states and hidden layers.
      heads: attention heads of the history encoder.
      feed_forward: hidden width of its FFN.
      dropout: rate in [0, 1).
      history_layers: transformer blocks over the history, >= 1.
      perturbation: eps, length of the perturbation of a state, >= 0.
      adversarial_weight: a, of the loss at the perturbed states, >= 0.
      score_entry: "none", "concatenate", "add" or "weight"; see `nn.score_entry`.
      score_place: "late" (non-linear head), "late_linear" or "early".

    Raises:
      ValueError: a size, rate, weight or name is outside its range.
    """
    check_heads(width, heads)
    check_positive(history_layers=history_layers, feed_forward=feed_forward)
    if not min(perturbation, adversarial_weight) >= 0:
        raise ValueError(
            f"perturbation {perturbation} and adversarial_weight {adversarial_weight} "
            "must both be at least 0"
        )
    use = ScoreUse(score_entry, score_place)
    module = PointwiseScorer(spec, width, heads, feed_forward, history_layers, use)
    scorer = wrap(module, dropout=dropout)
    loss = adversarial_loss(scorer, radius=perturbation, weight=adversarial_weight)
    return scorer._replace(stages=(Stage("train", loss),))
