"""MG-E-style: three generators propose lists, an evaluator shows one, the last learns to differ.

After "MG-E with complementary lists" (CLIG), Yang et al. 2025, whose loss, pool and kernel are not
public: hence "-style". The generators are PRM, SetRank with induced points, and NAR4Rec's matching
generator, on parameters of their own. After each was trained by its own loss, the last is trained
with the others frozen by `L_pref - complement * mean_s advantage_s log pi(l_s)`, the advantages
those of `reward(l) = R(l) + mean_a delta(J_a, l)` over lists l_s sampled from it.

Ours: R in the reward, with the weight of delta, in the structure `L_pref - beta E[gain]` (at full
weight the generator learns what R overrates, which has never seen an item that was not shown);
L_pref is the binary cross-entropy of its logits; delta is `nn.list_distance.disagreement`; the
baseline is the mean reward of a request's samples; CLIG has one round; the matching generator's
list is greedy and its loss has no contrastive part, so that what is rewarded is what is shown; the
scorer, which DNR and the binary cross-entropy train, is the mean of the three generators' logits.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import arranging, module_loss, wrap
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.list_distance import disagreement
from dnr_jax.nn.list_evaluator import ListEvaluator, evaluator_loss, judge, list_value
from dnr_jax.nn.lists import places_log_probability, score_list, top_list
from dnr_jax.nn.losses import attrank, bce
from dnr_jax.nn.matching import (
    MatchingGenerator,
    greedy_list,
    keep_best,
    matching_loss,
    mean_over_places,
    sample_places,
)
from dnr_jax.nn.policy_gradient import reinforce_loss
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
        return tuple(read(request, drop=drop) for read in readers)

    def decode(
        self, memory: tuple[Memory, ...], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the mean of the generators' logits, `[B, N]`."""
        pairs = zip((self.prm, self.setrank, self.matching), memory, strict=False)
        logits = [part.decode(known, scores, where, drop=drop) for part, known in pairs]
        return jnp.stack(logits).mean(axis=0)

    def _frozen_lists(self, memory: tuple[Memory, ...], scores: Array, where: Array) -> Array:
        """Return the lists `[B, 2, K]` of the generators that CLIG leaves as they are."""
        prm = self.prm.decode(memory[0], scores, where, drop=identity)
        setrank = self.setrank.decode(memory[1], scores, where, drop=identity)
        lists = [top_list(logits, where, self.slate_size) for logits in (prm, setrank)]
        return jnp.stack(lists, axis=1)

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
        prm = self.prm.decode(memory[0], batch.scores, where, drop=drop)
        setrank = self.setrank.decode(memory[1], batch.scores, where, drop=drop)
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
        rewards = self._rewards(batch, lists)
        likelihood = places_log_probability(jnp.swapaxes(matching, 1, 2), where, lists)
        policy = reinforce_loss(rewards, likelihood, where.any(axis=1))
        preference = bce(mean_over_places(matching), batch.labels, batch.weights)
        return preference + self.complement * policy

    def _rewards(self, batch: Batch, lists: Array) -> Array:
        """Compute `R(l) + mean_a delta(J_a, l)`: `[B, S, K]` to `[B, S]`."""
        request, where = batch.request, batch.request.where
        memory = tuple(part.encode(request, drop=identity) for part in (self.prm, self.setrank))
        others = self._frozen_lists(memory, batch.scores, where)
        clicks = judge(self.evaluator, request, lists)
        return list_value(clicks, lists) + disagreement(lists, others).mean(axis=-1)


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
      complement: beta, weight of a list's value and its difference from the others' lists, >= 0.
      samples: lists a request that the last stage samples, >= 2, as their rewards are compared.
      score_entry: "none", "concatenate", "add" or "weight"; see `nn.score_entry`.
      score_place: "late" (non-linear head), "late_linear" or "early".

    Raises:
      ValueError: a size, rate, weight or name is outside its range.
    """
    check_heads(width, heads)
    check_positive(
        layers=layers,
        history_layers=history_layers,
        feed_forward=feed_forward,
        inducing=inducing,
        slate_size=slate_size,
    )
    if not complement >= 0:
        raise ValueError(f"complement {complement} must be at least 0: it weighs a loss")
    if samples < 2:
        raise ValueError(f"samples {samples} must be at least 2: their rewards are compared")
    use = ScoreUse(score_entry, score_place)
    sizes = (width, layers, heads, feed_forward, history_layers, inducing, slate_size)
    module = MGE(spec, *sizes, utility_threshold, complement, samples, use)
    lessons = (MGE.teach_evaluator, MGE.teach_generators, MGE.teach_complement)
    first, second, third = (module_loss(module, lesson, dropout=dropout) for lesson in lessons)
    stages = (
        Stage("evaluator", first, ("evaluator",), share=0.5),
        Stage("generators", second, ("prm", "setrank", "matching")),
        Stage("complement", third, ("matching",), share=0.5),
    )
    scorer = wrap(module, dropout=dropout, visit=MGE.touch)
    shown = arranging(module, MGE.arrange)
    return scorer._replace(arrange=shown, stages=stages, needs_slate=True)
