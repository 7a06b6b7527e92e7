"""MG-E-style: three generators propose lists, an evaluator picks one, the last learns to differ.

After "MG-E with complementary lists" (CLIG), Yang et al. 2025, whose loss, pool and kernel are not
public: hence "-style". The generators are PRM, SetRank with induced points, and NAR4Rec's matching
generator, each with its own parameters. Each is first trained by its own loss. Then the last is
trained, with the others frozen, by `L_pref - complement * mean_s advantage_s log pi(l_s)`. The
advantages are those of `reward(l) = R(l) + mean_a delta(J_a, l)` over lists l_s sampled from it.

Ours: R is part of the reward, with the same weight as delta, in the structure
`L_pref - beta E[gain]`. (R has never seen an item that was not shown, so at full weight the
generator learns what R overrates.) L_pref is the binary cross-entropy of its logits; delta is
`list_distance.disagreement`; the baseline is the mean reward of a request's samples; CLIG has one
round. The matching generator's list is greedy and its loss has no contrastive part, so that the
rewarded list is the shown one; lists are sampled with dropout on. The scorer, which DNR and the
binary cross-entropy train, is the mean of the three generators' logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import Lesson
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.list_evaluator import ListEvaluator, generator_evaluator, judge, list_value
from dnr_jax.nn.losses import attrank, bce
from dnr_jax.nn.policy_gradient import reinforce_loss
from dnr_jax.nn.slates import keep_best, places_log_probability, score_list, top_list
from dnr_jax.nn.trunk import Trunk
from dnr_jax.rerankers.mge.list_distance import disagreement
from dnr_jax.rerankers.mge.sampling import greedy_list, sample_places
from dnr_jax.rerankers.nar4rec.matching import MatchingGenerator, matching_loss, mean_over_places
from dnr_jax.rerankers.prm import PRM, PRMSettings
from dnr_jax.rerankers.setrank import SetRank, SetRankSettings
from dnr_jax.settings import knob
from dnr_jax.types import Array, Batch, FeatureSpec, Memory, Request, Reranker, Task


@dataclass(frozen=True, kw_only=True)
class MGESettings(Trunk):
    """Knobs of MG-E; all parts share the trunk."""

    inducing: int = knob(20, "learned points of SetRank", at_least=1)
    utility_threshold: float = knob(3.0, "sum of labels from which a shown list is good")
    complement: float = knob(
        0.1, "beta, weight of good lists unlike the other generators'", at_least=0
    )
    samples: int = knob(5, "lists per request whose rewards are compared", at_least=2)


class MGE(nn.Module):
    """The module behind `mge`."""

    spec: FeatureSpec
    settings: MGESettings
    slate_size: int

    def setup(self) -> None:
        """Make the generators and the evaluator, which share no parameters."""
        spec, settings = self.spec, self.settings
        self.prm = PRM(spec, PRMSettings.on(settings))
        self.setrank = SetRank(spec, SetRankSettings.on(settings, inducing=settings.inducing))
        self.matching = MatchingGenerator(spec, settings, self.slate_size)
        self.evaluator = ListEvaluator(spec, settings, self.slate_size)

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
        """Put the list that R rates highest first, then the rest by their logits."""
        _, matching = self.matching.match(memory[2], scores, where, drop=identity)
        frozen = self._frozen_lists(memory, scores, where)
        lists = jnp.concatenate([frozen, greedy_list(matching, where)[:, None]], axis=1)
        values = list_value(self.evaluator(memory[3], lists, drop=identity), lists)
        logits = self.decode(memory, scores, where, drop=identity)
        return score_list(keep_best(lists, values), logits, where)

    def teach_generators(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the sum of the generators' own losses, the loss of the second stage."""
        where, memory = batch.request.where, self.encode(batch.request, drop=drop)
        prm = self.prm.decode(memory[0], batch.scores, where, drop=drop)
        setrank = self.setrank.decode(memory[1], batch.scores, where, drop=drop)
        _, matching = self.matching.match(memory[2], batch.scores, where, drop=drop)
        scorers = bce(prm, batch.labels, batch.weights)
        scorers += attrank(setrank, batch.labels, batch.weights)
        return scorers + matching_loss(matching, batch, threshold=self.settings.utility_threshold)

    def teach_complement(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute L_pref and the policy loss of the last generator, the loss of the third stage."""
        request, where = batch.request, batch.request.where
        memory = self.matching.encode(request, drop=drop)
        _, matching = self.matching.match(memory, batch.scores, where, drop=drop)
        keys = ops.per_request_keys(key, request.index)
        lists = sample_places(keys, matching, where, count=self.settings.samples)
        rewards = self._rewards(batch, lists)
        likelihood = places_log_probability(jnp.swapaxes(matching, 1, 2), where, lists)
        policy = reinforce_loss(rewards, likelihood, where.any(axis=1))
        preference = bce(mean_over_places(matching), batch.labels, batch.weights)
        return preference + self.settings.complement * policy

    def _rewards(self, batch: Batch, lists: Array) -> Array:
        """Compute `R(l) + mean_a delta(J_a, l)`: `[B, S, K]` to `[B, S]`."""
        request, where = batch.request, batch.request.where
        memory = tuple(part.encode(request, drop=identity) for part in (self.prm, self.setrank))
        others = self._frozen_lists(memory, batch.scores, where)
        clicks = judge(self.evaluator, request, lists)
        return list_value(clicks, lists) + disagreement(lists, others).mean(axis=-1)


def mge(task: Task, settings: MGESettings) -> Reranker:
    """Build MG-E-style reranking: the evaluator is trained, then all generators, then the last.

    `layers` is the number of blocks in every encoder of candidates, places or lists.
    """
    return generator_evaluator(
        MGE(task.spec, settings, task.slate_size),
        Lesson("generators", MGE.teach_generators, ("prm", "setrank", "matching")),
        Lesson("complement", MGE.teach_complement, ("matching",), share=0.5),
        dropout=settings.dropout,
        arrange=MGE.arrange,
    )
