"""MG-E-style: three generators propose lists, an evaluator shows one, the last learns to differ.

After "MG-E with complementary lists" (CLIG), Yang et al. 2025, whose loss, pool and kernel are not
public: hence "-style". The generators are PRM, SetRank with induced points, and NAR4Rec's matching
generator, on parameters of their own. After each was trained by its own loss, the last is trained
with the others frozen by `L_pref - sum_s advantage_s log pi(l_s)`, with
`reward(l) = R(l) + complement * mean_a delta(J_a, l)` of lists l sampled from it.

Ours: L_pref is the binary cross-entropy of its logits; delta is the share of item pairs that two
lists order differently (POD); the baseline is the mean reward of a request's samples; one round,
as M is 3; the matching generator's list is greedy and its loss has no contrastive part, so that
what the last stage rewards is what is shown; the scorer, which DNR and the binary cross-entropy
train, is the mean of the three generators' logits.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import arranging, module_loss, wrap
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.list_evaluator import ListEvaluator, evaluator_loss, list_value
from dnr_jax.nn.lists import score_list, top_list
from dnr_jax.nn.losses import attrank, bce
from dnr_jax.nn.matching import (
    MatchingGenerator,
    greedy_list,
    keep_best,
    matching_loss,
    mean_over_places,
    sample_log_probability,
    sample_places,
)
from dnr_jax.nn.score_entry import ScoreUse
from dnr_jax.nn.sizes import check_heads, check_positive
from dnr_jax.rerankers.prm import PRM
from dnr_jax.rerankers.setrank import SetRank
from dnr_jax.types import Array, Batch, FeatureSpec, Memory, Request, Reranker, Stage


class MGE(nn.Module):
    """The module behind `mge`; see there for the attributes."""

    spec: FeatureSpec
    width: int
    layers: int
    heads: int
    feed_forward: int
    history_layers: int
    inducing: int
    slate_size: int
    utility_threshold: float
    complement: float
    samples: int
    scores: ScoreUse

    def setup(self) -> None:
        """Make the generators and the evaluator, which share no parameters."""
        sizes = (self.layers, self.heads, self.feed_forward, self.history_layers)
        front = (self.spec, self.width, *sizes)
        self.prm = PRM(*front, "none", causal=False, scores=self.scores)
        self.setrank = SetRank(*front, "imsab", self.inducing, "none", self.scores)
        self.matching = MatchingGenerator(*front, self.slate_size, self.scores)
        self.evaluator = ListEvaluator(self.spec, self.width, self.slate_size, *sizes)

    def encode(self, request: Request, *, drop: Drop) -> tuple[Memory, ...]:
        """Return the generators' memories and the evaluator's item states."""
        readers = (self.prm.encode, self.setrank.encode, self.matching.encode, self.evaluator.read)
        return tuple(reader(request, drop=drop) for reader in readers)

    def decode(
        self, memory: tuple[Memory, ...], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the mean of the generators' logits, `[B, N]`."""
        return jnp.stack(self._logits(memory, scores, where, drop=drop)).mean(axis=0)

    def _logits(
        self, memory: tuple[Memory, ...], scores: Array, where: Array, *, drop: Drop
    ) -> list[Array]:
        readers = (self.prm.decode, self.setrank.decode, self.matching.decode)
        pairs = zip(readers, memory[:3], strict=True)
        return [read(part, scores, where, drop=drop) for read, part in pairs]

    def _frozen_lists(self, memory: tuple[Memory, ...], scores: Array, where: Array) -> Array:
        """Return the lists `[B, 2, K]` of the generators that CLIG leaves as they are."""
        logits = jnp.stack(self._logits(memory, scores, where, drop=identity)[:2], axis=1)
        real = jnp.broadcast_to(where[:, None], logits.shape)
        return top_list(logits, real, self.slate_size)

    def arrange(self, memory: tuple[Memory, ...], scores: Array, where: Array) -> Array:
        """Order the candidates by the list that R likes best, the rest by their logits."""
        _, matching = self.matching.match(memory[2], scores, where, drop=identity)
        frozen = self._frozen_lists(memory, scores, where)
        lists = jnp.concatenate([frozen, greedy_list(matching, where)[:, None]], axis=1)
        values = list_value(self.evaluator(memory[3], lists, drop=identity), lists)
        logits = self.decode(memory, scores, where, drop=identity)
        return score_list(keep_best(lists, values), logits, where)

    def touch(self, request: Request, scores: Array) -> Array:
        """Run everything once, so that `init` makes all parameters."""
        return self.arrange(self.encode(request, drop=identity), scores, request.where)

    def teach_evaluator(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the loss of the first stage."""
        return evaluator_loss(self.evaluator, batch, drop=drop)

    def teach_generators(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the sum of the generators' own losses, the loss of the second stage."""
        where, memory = batch.request.where, self.encode(batch.request, drop=drop)
        prm, setrank, _ = self._logits(memory, batch.scores, where, drop=drop)
        _, matching = self.matching.match(memory[2], batch.scores, where, drop=drop)
        scorers = bce(prm, batch.labels, batch.weights)
        scorers += attrank(setrank, batch.labels, batch.weights)
        return scorers + matching_loss(matching, batch, threshold=self.utility_threshold)

    def teach_complement(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute L_pref and the policy loss of the last generator, the loss of the third stage."""
        request, where = batch.request, batch.request.where
        memory = self.matching.encode(request, drop=drop)
        _, matching = self.matching.match(memory, batch.scores, where, drop=drop)
        keys = ops.per_request_keys(key, request.index)
        lists = sample_places(keys, matching, where, count=self.samples)
        rewards = jax.lax.stop_gradient(self._rewards(batch, lists))
        likelihood = sample_log_probability(matching, where, lists)
        policy = policy_loss(rewards, likelihood, where.any(axis=1))
        return bce(mean_over_places(matching), batch.labels, batch.weights) + policy

    def _rewards(self, batch: Batch, lists: Array) -> Array:
        """Compute `R(l) + complement * mean_a delta(J_a, l)`: `[B, S, K]` to `[B, S]`."""
        memory, where = self.encode(batch.request, drop=identity), batch.request.where
        others = self._frozen_lists(memory, batch.scores, where)
        apart = disagreement(lists, others, where.shape[1]).mean(axis=-1)
        values = list_value(self.evaluator(memory[3], lists, drop=identity), lists)
        return values + self.complement * apart


def disagreement(lists: Array, others: Array, candidates: int) -> Array:
    """Compute delta, the share of item pairs in the union of two lists that they order differently.

    An item outside a list is tied with others outside and stands below those inside; first, second
    and tied are different orders. 0 for equal lists and for a union of one item, 1 for lists of
    nothing in common.

    Args:
      lists: `int32 [B, S, K]`.
      others: `int32 [B, A, K]`.
      candidates: N.

    Returns:
      `float32 [B, S, A]` in [0, 1], the same with the two exchanged.
    """
    mine, yours = _heights(lists, candidates)[:, :, None], _heights(others, candidates)[:, None]
    union = (mine > 0) | (yours > 0)
    apart = ~jnp.eye(candidates, dtype=bool)[None, None, None]
    pairs = union[..., :, None] & union[..., None, :] & apart
    differ = _orders(mine) != _orders(yours)
    return (pairs & differ).sum(axis=(-2, -1)) / jnp.maximum(pairs.sum(axis=(-2, -1)), 1)


def _heights(lists: Array, candidates: int) -> Array:
    """Return K for the first item of `[..., K]`, 1 for the last, 0 outside: `int32 [..., N]`."""
    chosen = lists[..., None] == jnp.arange(candidates).reshape((1,) * lists.ndim + (-1,))
    falling = jnp.arange(lists.shape[-1], 0, -1).reshape((1,) * (lists.ndim - 1) + (-1, 1))
    return (chosen * falling).sum(axis=-2)


def _orders(heights: Array) -> Array:
    return jnp.sign(heights[..., :, None] - heights[..., None, :])


def policy_loss(rewards: Array, likelihood: Array, real: Array) -> Array:
    """Compute REINFORCE with the mean reward of a request's samples as its baseline.

    Args:
      rewards: `float32 [B, S]`.
      likelihood: log-probability of the samples, `float32 [B, S]`.
      real: `bool [B]`, the requests that count.
    """
    advantages = rewards - rewards.mean(axis=-1, keepdims=True)
    return ops.weighted_mean(-(advantages * likelihood).mean(axis=-1), real)


def mge(
    spec: FeatureSpec,
    *,
    width: int,
    layers: int,
    heads: int,
    feed_forward: int,
    dropout: float,
    history_layers: int,
    inducing: int,
    slate_size: int,
    utility_threshold: float,
    complement: float,
    samples: int,
    score_entry: str,
    score_place: str,
) -> Reranker:
    """Build MG-E-style reranking: the evaluator is trained, then all generators, then the last.

    Args:
      spec: column names and vocabulary sizes.
      width: D, a multiple of `heads`; all parts share this and the sizes that follow.
      layers: blocks of every encoder of candidates, places or lists, >= 1.
      heads: attention heads.
      feed_forward: hidden width of each block's FFN.
      dropout: rate in [0, 1).
      history_layers: transformer blocks over the history, >= 1.
      inducing: number of SetRank's induced points, >= 1.
      slate_size: K, length of the lists, >= 1; the shown lists of the data have it too.
      utility_threshold: tau of the matching generator; see `nar4rec`.
      complement: beta, weight of the difference from the other generators' lists, >= 0.
      samples: lists a request that the last stage samples, >= 2, as their rewards are compared.
      score_entry: "none", "concatenate", "add" or "weight"; see `nn.score_entry`.
      score_place: "late" (non-linear head), "late_linear" or "early".

    Raises:
      ValueError: a size, rate, weight or name is outside its range.
    """
    check_heads(width, heads)
    sizes = (width, layers, heads, feed_forward, history_layers, inducing, slate_size)
    names = ("width", "layers", "heads", "feed_forward", "history_layers", "inducing", "slate_size")
    check_positive(**dict(zip(names, sizes, strict=True)))
    if not complement >= 0:
        raise ValueError(f"complement {complement} must be at least 0: it weighs a reward")
    if samples < 2:
        raise ValueError(f"samples {samples} must be at least 2: their rewards are compared")
    use = ScoreUse(score_entry, score_place)
    module = MGE(spec, *sizes, utility_threshold, complement, samples, use)
    stages = (
        ("evaluator", MGE.teach_evaluator, ("evaluator",), 0.5),
        ("generators", MGE.teach_generators, ("prm", "setrank", "matching"), 0.5),
        ("complement", MGE.teach_complement, ("matching",), 1.0),
    )
    return wrap(module, dropout=dropout, visit=MGE.touch)._replace(
        arrange=arranging(module, MGE.arrange),
        stages=tuple(
            Stage(name, module_loss(module, lesson, dropout=dropout), groups, share)
            for name, lesson, groups, share in stages
        ),
        needs_slate=True,
    )
