"""GoalRank: a generator pulled towards a group-relative reference policy.

"GoalRank: Group-Relative Optimization for a Large Ranking Model", arXiv 2509.22046. A frozen list
evaluator rewards G sampled lists of a request, `r_g = sum_k sigmoid(E_{l_k}) / log2(k + 1)`. The
reference policy over the group is the softmax of the standardised rewards. The generator minimises
the cross-entropy to it, `L = w L_ref + L_gen` with `L_ref = -sum_g ref_g log pi(l_g)`.

Deviations: the authors' released code has pi(l) in place of log pi(l), which leaves almost no
gradient (pi is near 1e-10), so the paper's cross-entropy is used. L_gen, which the paper does not
define, is the binary cross-entropy of the logits. The policy is Plackett-Luce over one set of
logits (the form of the authors' README), whereas their release runs the transformer again after
each chosen item. So the displayed list is the order of the logits and needs no search. Lists
are sampled, and their likelihood is taken, with dropout on.

`matching=True` puts the product of history and candidate into h (`nn.user_state`), which the
paper does not have.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn import slates
from dnr_jax.nn.adapter import Lesson
from dnr_jax.nn.attention import Transformer
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.list_evaluator import ListEvaluator, generator_evaluator, judge
from dnr_jax.nn.losses import bce
from dnr_jax.nn.policy_gradient import standardise
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.settings import knob
from dnr_jax.types import Array, Batch, FeatureSpec, Request, Reranker, Task

# w: the authors' weight of L_ref; that of L_gen is 1.
REFERENCE_WEIGHT = 0.01


@dataclass(frozen=True, kw_only=True)
class GoalRankSettings(Trunk):
    """Knobs of GoalRank; generator and evaluator have `layers` blocks each."""

    group_size: int = knob(8, "G, lists per request whose rewards are compared", at_least=2)


class GoalRank(nn.Module):
    """The module behind `goalrank`; its lists have `slate_size` places."""

    spec: FeatureSpec
    settings: GoalRankSettings
    slate_size: int

    def setup(self) -> None:
        """Make the generator's blocks and the evaluator, which share no parameters."""
        width, scores = self.settings.width, self.settings.scores
        self.request_encoder = RequestEncoder(self.spec, self.settings)
        self.fusion = Fusion(width)
        self.early_entry = EarlyEntry(scores)
        self.list_encoder = Transformer(*self.settings.blocks, causal=False)
        self.head = ScoredHead(scores, width)
        self.evaluator = ListEvaluator(self.spec, self.settings, self.slate_size)

    def encode(self, request: Request, *, drop: Drop) -> Array:
        """Return H `[B, N, D]`, or the tokens h where the candidate encoder needs scores."""
        tokens = self.fusion(*self.request_encoder(request, drop=drop), drop=drop)
        if self.settings.scores.early:
            return tokens
        return self.list_encoder(tokens, request.where, drop=drop)

    def decode(self, memory: Array, scores: Array, where: Array, *, drop: Drop) -> Array:
        """Return the logits `[B, N]` of the policy."""
        if self.settings.scores.early:
            memory = self.list_encoder(self.early_entry(memory, scores), where, drop=drop)
        return self.head(memory, scores)

    def run_all(self, request: Request, scores: Array) -> tuple[Array, Array]:
        """Run generator and evaluator once, so that `init` makes all parameters."""
        memory = self.encode(request, drop=identity)
        logits = self.decode(memory, scores, request.where, drop=identity)
        first = slates.top_list(logits, request.where, self.slate_size)[:, None]
        return logits, judge(self.evaluator, request, first)

    def teach_policy(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute w L_ref + L_gen, the loss of the second stage."""
        request = batch.request
        memory = self.encode(request, drop=drop)
        logits = self.decode(memory, batch.scores, request.where, drop=drop)
        keys = ops.per_request_keys(key, request.index)
        group = slates.sample_lists(
            keys, logits, request.where, size=self.slate_size, count=self.settings.group_size
        )
        clicks = judge(self.evaluator, request, group)
        reference = reference_policy(list_reward(jax.lax.stop_gradient(clicks), group))
        likelihood = slates.list_log_probability(logits, request.where, group)
        # A request without candidates has only the empty list, from which nothing is learned.
        real = request.where.any(axis=1).astype(jnp.float32)
        away = ops.weighted_mean(-(reference * likelihood).sum(axis=-1), real)
        return REFERENCE_WEIGHT * away + bce(logits, batch.labels, batch.weights)


def list_reward(clicks: Array, group: Array) -> Array:
    """Compute `sum_k sigmoid(clicks_k) / log2(k + 1)` of lists `[B, G, K]`: `float32 [B, G]`."""
    discounts = 1 / jnp.log2(jnp.arange(group.shape[-1]) + 2.0)
    return (jnp.where(group >= 0, jax.nn.sigmoid(clicks), 0.0) * discounts[None, None]).sum(axis=-1)


def reference_policy(rewards: Array) -> Array:
    """Turn rewards `[B, G]` into the reference, softmax of `(r - mean) / std`; uniform if equal."""
    return jax.nn.softmax(standardise(rewards, ddof=1), axis=-1)


def goalrank(task: Task, settings: GoalRankSettings) -> Reranker:
    """Build GoalRank (arXiv 2509.22046): the evaluator is trained first, then the generator."""
    use = settings.scores
    entry = ("early_entry",) if use.early and use.entry != "weight" else ()
    policy = ("request_encoder", "fusion", "list_encoder", "head", *entry)
    return generator_evaluator(
        GoalRank(task.spec, settings, task.slate_size),
        Lesson("policy", GoalRank.teach_policy, policy),
        dropout=settings.dropout,
        run_all=GoalRank.run_all,
    )
