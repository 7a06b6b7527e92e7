"""GloRank-style: lists are written as global item codes, the same in every request.

After arXiv 2604.25291, of which only the abstract was available: a reranker generates global tokens
of items in place of indices into the candidate set, first supervised on good lists, then by
reinforcement learning on a list's utility. All details are ours:

- Codes: residual k-means of the item vectors (`semantic_ids`).
- Generator: a transformer over the list so far that attends to the candidates. It chooses code by
  code among those that the remaining candidates allow (`generator`).
- Supervised: `-log pi` of the shown list, its items ordered by label.
- Reinforcement: `-A log pi(l)` over a group of lists drawn from the generator, with A the standard
  score of R(l) in the group (as in GRPO, arXiv 2402.03300) and R the list evaluator, trained first
  and then frozen. Its weight relative to the supervised loss is small: R was trained only on shown
  lists, and a policy that follows it further writes lists about which R is wrong (as observed on
  MovieLens-100K). There is no dropout here, so lists are judged by the policy that drew them.
- The list of the most likely codes is shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import Lesson
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.item_tables import vectors_of
from dnr_jax.nn.list_evaluator import (
    ListEvaluator,
    generator_evaluator,
    judge,
    list_value,
    slate_labels,
)
from dnr_jax.nn.policy_gradient import standardise
from dnr_jax.nn.slates import score_list
from dnr_jax.nn.trunk import Trunk
from dnr_jax.rerankers.glorank.generator import Scene, TokenGenerator
from dnr_jax.rerankers.glorank.semantic_ids import semantic_ids
from dnr_jax.settings import knob
from dnr_jax.types import Array, Batch, FeatureSpec, Memory, Request, Reranker, Task

# Imitation has weight 1; 1, 0.1 and 0.01 were compared on validation lists.
REINFORCEMENT_WEIGHT = 0.01


@dataclass(frozen=True, kw_only=True)
class GloRankSettings(Trunk):
    """Knobs of GloRank; candidate encoder, decoder and evaluator have `layers` blocks each.

    With late entry of the score, the score head's logit b is added to each candidate; without a
    score there is no head.
    """

    group_size: int = knob(8, "G, lists per request whose rewards are compared", at_least=2)
    codes: int = knob(32, "size of each level's vocabulary", at_least=2)
    code_levels: int = knob(
        2, "levels of k-means, before items of the same codes are numbered", at_least=1
    )


class GloRank(nn.Module):
    """The module behind `glorank`; `table` `int32 [V, L]` holds the items' codes."""

    spec: FeatureSpec
    settings: GloRankSettings
    slate_size: int
    table: np.ndarray

    def setup(self) -> None:
        """Make generator and evaluator, which share no parameters."""
        self.generator = TokenGenerator(
            self.spec, self.settings, self.slate_size, self.table, self.settings.codes
        )
        self.evaluator = ListEvaluator(self.spec, self.settings, self.slate_size)

    def encode(self, request: Request, *, drop: Drop) -> Memory:
        """Return the generator's memory."""
        return self.generator.encode(request, drop=drop)

    def decode(self, memory: Memory, scores: Array, where: Array, *, drop: Drop) -> Array:
        """Return the generator's logits `[B, N]`."""
        return self.generator.decode(memory, scores, where, drop=drop)

    def arrange(self, memory: Memory, scores: Array, where: Array) -> Array:
        """Put the list of the most likely codes first, then the rest by their logits."""
        scene = self.generator.scene(memory, scores, where, drop=identity)
        written = self.generator.write(scene, None, group=1)[:, 0]
        return score_list(written, self.decode(memory, scores, where, drop=identity), where)

    def run_all(self, request: Request, scores: Array) -> tuple[Array, Array, Array]:
        """Run generator and evaluator once, so that `init` makes all parameters."""
        memory = self.encode(request, drop=identity)
        logits = self.decode(memory, scores, request.where, drop=identity)
        scene = self.generator.scene(memory, scores, request.where, drop=identity)
        lists = jnp.zeros((scores.shape[0], 1, self.slate_size), jnp.int32)
        likely = self.generator.log_probability(scene, lists, drop=identity)
        items = self.evaluator.read(request, drop=identity)
        return logits, likely, self.evaluator(items, lists, drop=identity)

    def imitate(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the loss of the second stage, `-log pi` of shown lists."""
        return self._imitation(self._scene(batch, drop=drop), batch, drop=drop)

    def reinforce(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the third stage's loss: weighted `-A log pi` of drawn lists, and imitation."""
        scene, request = self._scene(batch, drop=identity), batch.request
        count = self.settings.group_size
        shape = (count, self.slate_size, self.table.shape[1] + 1)
        keys = ops.per_request_keys(key, request.index)
        luck = jax.vmap(lambda own: jax.random.uniform(own, shape))(keys)
        group = self.generator.write(jax.lax.stop_gradient(scene), luck, group=count)
        clicks = judge(self.evaluator, request, group)
        gains = standardise(jax.lax.stop_gradient(list_value(clicks, group)), ddof=1)
        likely = self.generator.log_probability(scene, group, drop=identity).sum(axis=-1)
        real = jnp.broadcast_to(request.where.any(axis=1, keepdims=True), gains.shape)
        away = ops.weighted_mean(-gains * likely, real)
        return REINFORCEMENT_WEIGHT * away + self._imitation(scene, batch, drop=identity)

    def _scene(self, batch: Batch, *, drop: Drop) -> Scene:
        memory = self.encode(batch.request, drop=drop)
        return self.generator.scene(memory, batch.scores, batch.request.where, drop=drop)

    def _imitation(self, scene: Scene, batch: Batch, *, drop: Drop) -> Array:
        lists = best_first(batch)[:, None]
        likely = self.generator.log_probability(scene, lists, drop=drop)
        return ops.weighted_mean(-likely, lists >= 0)


def best_first(batch: Batch) -> Array:
    """Order each shown list by label, then as shown, unjudged items left out: `int32 [B, K]`."""
    labels, weights = slate_labels(batch)
    real = weights > 0
    order = jnp.argsort(jnp.where(real, -labels, 1.0), axis=-1, stable=True)
    return jnp.take_along_axis(jnp.where(real, batch.slate, -1), order, axis=-1)


def glorank(task: Task, settings: GloRankSettings) -> Reranker:
    """Build GloRank-style: an evaluator first, then shown lists, then reinforcement.

    Raises:
      ValueError: the task does not have a vector for every item id.
    """
    sizes = {"codes": settings.codes, "levels": settings.code_levels}
    table = semantic_ids(vectors_of(task), **sizes, seed=task.seed)
    return generator_evaluator(
        GloRank(task.spec, settings, task.slate_size, table),
        Lesson("imitation", GloRank.imitate, ("generator",), share=0.5),
        Lesson("reinforcement", GloRank.reinforce, ("generator",), share=0.5),
        dropout=settings.dropout,
        run_all=GloRank.run_all,
        arrange=GloRank.arrange,
    )
