"""GoalRank: a generator pulled towards a group-relative reference policy.

"GoalRank: Group-Relative Optimization for a Large Ranking Model", arXiv 2509.22046. A frozen list
evaluator rewards G sampled lists of a request, `r_g = sum_k sigmoid(E_{l_k}) / log2(k + 1)`; the
reference policy over the group is the softmax of the standardised rewards, and the generator
minimises its cross-entropy, `L = w L_ref + L_gen` with `L_ref = -sum_g ref_g log pi(l_g)`.

Deviations: the authors' released code has pi(l) in place of log pi(l), which leaves no gradient
(pi is near 1e-10), so the paper's cross-entropy is used; its undefined L_gen is the binary
cross-entropy of the logits. The policy is Plackett-Luce over one set of logits (the form of the
authors' README), where their release runs the transformer again after each chosen item; the shown
list is then the order of the logits, and needs no search.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn import lists
from dnr_jax.nn.adapter import module_loss, wrap
from dnr_jax.nn.attention import Transformer
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.list_evaluator import ListEvaluator, evaluator_loss, judge
from dnr_jax.nn.losses import bce
from dnr_jax.nn.policy_gradient import standardise
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead, ScoreUse
from dnr_jax.nn.sizes import check_heads, check_positive
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.types import Array, Batch, FeatureSpec, Request, Reranker, Stage

# w: the authors' weight of L_ref beside 1 for L_gen.
REFERENCE_WEIGHT = 0.01


class GoalRank(nn.Module):
    """The module behind `goalrank`; see there for the attributes."""

    spec: FeatureSpec
    width: int
    layers: int
    heads: int
    feed_forward: int
    history_layers: int
    slate_size: int
    group_size: int
    scores: ScoreUse

    def setup(self) -> None:
        """Make the generator's blocks and the evaluator, which share no parameters."""
        self.request_encoder = RequestEncoder(
            self.spec, self.width, self.history_layers, self.heads, self.feed_forward
        )
        self.fusion = Fusion(self.width)
        self.early_entry = EarlyEntry(self.scores)
        self.list_encoder = Transformer(self.layers, self.heads, self.feed_forward, causal=False)
        self.head = ScoredHead(self.scores, self.width)
        sizes = (self.layers, self.heads, self.feed_forward, self.history_layers)
        self.evaluator = ListEvaluator(self.spec, self.width, self.slate_size, *sizes)

    def encode(self, request: Request, *, drop: Drop) -> Array:
        """Return H `[B, N, D]`, or the tokens h where the candidate encoder needs scores."""
        tokens = self.fusion(*self.request_encoder(request, drop=drop), drop=drop)
        return tokens if self.scores.early else self.list_encoder(tokens, request.where, drop=drop)

    def decode(self, memory: Array, scores: Array, where: Array, *, drop: Drop) -> Array:
        """Return the logits `[B, N]` of the policy."""
        if self.scores.early:
            memory = self.list_encoder(self.early_entry(memory, scores), where, drop=drop)
        return self.head(memory, scores)

    def touch(self, request: Request, scores: Array) -> tuple[Array, Array]:
        """Run generator and evaluator once, so that `init` makes all parameters."""
        memory = self.encode(request, drop=identity)
        logits = self.decode(memory, scores, request.where, drop=identity)
        first = lists.top_list(logits, request.where, self.slate_size)[:, None]
        return logits, judge(self.evaluator, request, first)

    def teach_evaluator(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the loss of the first stage."""
        return evaluator_loss(self.evaluator, batch, drop=drop)

    def teach_policy(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute w L_ref + L_gen, the loss of the second stage."""
        request = batch.request
        memory = self.encode(request, drop=drop)
        logits = self.decode(memory, batch.scores, request.where, drop=drop)
        keys = ops.per_request_keys(key, request.index)
        group = lists.sample_lists(
            keys, logits, request.where, size=self.slate_size, count=self.group_size
        )
        clicks = judge(self.evaluator, request, group)
        reference = reference_policy(list_reward(jax.lax.stop_gradient(clicks), group))
        likelihood = lists.list_log_probability(logits, request.where, group)
        # A request without candidates has one list, the empty one, and nothing to learn.
        real = request.where.any(axis=1).astype(jnp.float32)
        away = ops.weighted_mean(-(reference * likelihood).sum(axis=-1), real)
        return REFERENCE_WEIGHT * away + bce(logits, batch.labels, batch.weights)


def list_reward(clicks: Array, group: Array) -> Array:
    """Compute `sum_k sigmoid(clicks_k) / log2(k + 1)` of lists `[B, G, K]`: `float32 [B, G]`."""
    discounts = 1 / jnp.log2(jnp.arange(group.shape[-1]) + 2.0)
    return (jnp.where(group >= 0, jax.nn.sigmoid(clicks), 0.0) * discounts[None, None]).sum(axis=-1)


def reference_policy(rewards: Array) -> Array:
    """Turn rewards `[B, G]` into the reference: softmax of `(r - mean) / std`, uniform if equal."""
    return jax.nn.softmax(standardise(rewards, ddof=1), axis=-1)


def goalrank(
    spec: FeatureSpec,
    *,
    width: int,
    layers: int,
    heads: int,
    feed_forward: int,
    dropout: float,
    history_layers: int,
    slate_size: int,
    group_size: int,
    score_entry: str,
    score_place: str,
) -> Reranker:
    """Build GoalRank (arXiv 2509.22046): the evaluator is trained first, then the generator.

    Args:
      spec: column names and vocabulary sizes.
      width: D, a multiple of `heads`.
      layers: blocks over the candidates, and over the list in the evaluator, >= 1.
      heads: attention heads, everywhere.
      feed_forward: hidden width of each block's FFN.
      dropout: rate in [0, 1).
      history_layers: transformer blocks over the history, >= 1.
      slate_size: K, length of the lists, >= 1.
      group_size: G, sampled lists a request, >= 2.
      score_entry: "none", "concatenate", "add" or "weight"; see `nn.score_entry`.
      score_place: "late" (non-linear head), "late_linear" or "early".

    Raises:
      ValueError: a size, rate or name is outside its range.
    """
    check_heads(width, heads)
    check_positive(
        layers=layers,
        history_layers=history_layers,
        feed_forward=feed_forward,
        slate_size=slate_size,
    )
    if group_size < 2:
        raise ValueError(f"group_size {group_size} must be at least 2: rewards are compared")
    use = ScoreUse(score_entry, score_place)
    sizes = (width, layers, heads, feed_forward, history_layers, slate_size, group_size)
    module = GoalRank(spec, *sizes, use)
    policy = ["request_encoder", "fusion", "list_encoder", "head"]
    policy += ["early_entry"] if use.early and use.entry != "weight" else []
    stages = (
        Stage(
            "evaluator",
            module_loss(module, GoalRank.teach_evaluator, dropout=dropout),
            ("evaluator",),
            share=0.5,
        ),
        Stage("policy", module_loss(module, GoalRank.teach_policy, dropout=dropout), tuple(policy)),
    )
    scorer = wrap(module, dropout=dropout, visit=GoalRank.touch)
    return scorer._replace(stages=stages, needs_slate=True)
