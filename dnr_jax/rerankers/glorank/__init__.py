"""GloRank-style: lists are written as global item codes, the same in every request.

After arXiv 2604.25291, of which the abstract alone was at hand: a reranker generates global tokens
of items in place of indices into the candidate set, first supervised on good lists, then by
reinforcement on a list's utility. Everything below that is ours:

- Codes: residual k-means of the item vectors (`semantic_ids`).
- Generator: a transformer over the list so far that attends to the candidates, and code by code a
  choice among what the candidates left allow (`generator`).
- Supervised: `-log pi` of the shown list, its items ordered by label.
- Reinforcement: `-A log pi(l)` over a group of lists drawn from the generator, with A the standard
  score of R(l) in the group (as in GRPO, arXiv 2402.03300) and R the list evaluator, trained first
  and then frozen. Its weight beside the supervised loss is small: R has met shown lists alone, and
  a policy that follows it further writes lists about which R is wrong (seen on MovieLens-100K).
  There is no dropout here, so that lists are judged by the policy that drew them.
- Shown is the list of likeliest codes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import arranging, module_loss, wrap
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.list_evaluator import ListEvaluator, evaluator_loss, judge, list_value, slate_labels
from dnr_jax.nn.lists import score_list
from dnr_jax.nn.policy_gradient import standardise
from dnr_jax.nn.score_entry import ScoreUse
from dnr_jax.nn.sizes import check_heads, check_positive
from dnr_jax.rerankers.glorank.generator import Scene, TokenGenerator
from dnr_jax.rerankers.glorank.semantic_ids import semantic_ids
from dnr_jax.types import Array, Batch, FeatureSpec, Memory, Request, Reranker, Stage

# Of reinforcement beside 1 for imitation; 1, 0.1 and 0.01 were compared on validation lists.
REINFORCEMENT_WEIGHT = 0.01


class GloRank(nn.Module):
    """The module behind `glorank`; see there for the attributes."""

    spec: FeatureSpec
    width: int
    layers: int
    heads: int
    feed_forward: int
    history_layers: int
    slate_size: int
    group_size: int
    table: np.ndarray
    codes: int
    scores: ScoreUse

    def setup(self) -> None:
        """Make generator and evaluator, which share no parameters."""
        sizes = (self.layers, self.heads, self.feed_forward, self.history_layers)
        self.generator = TokenGenerator(
            self.spec, self.width, *sizes, self.slate_size, self.table, self.codes, self.scores
        )
        self.evaluator = ListEvaluator(self.spec, self.width, self.slate_size, *sizes)

    def encode(self, request: Request, *, drop: Drop) -> Memory:
        """Return the generator's memory."""
        return self.generator.encode(request, drop=drop)

    def decode(self, memory: Memory, scores: Array, where: Array, *, drop: Drop) -> Array:
        """Return the generator's logits `[B, N]`."""
        return self.generator.decode(memory, scores, where, drop=drop)

    def arrange(self, memory: Memory, scores: Array, where: Array) -> Array:
        """Order the candidates by the likeliest codes, the rest by their logits."""
        scene = self.generator.scene(memory, scores, where, drop=identity)
        written = self.generator.write(scene, None, group=1)[:, 0]
        return score_list(written, self.decode(memory, scores, where, drop=identity), where)

    def touch(self, request: Request, scores: Array) -> tuple[Array, Array, Array]:
        """Run generator and evaluator once, so that `init` makes all parameters."""
        memory = self.encode(request, drop=identity)
        logits = self.decode(memory, scores, request.where, drop=identity)
        scene = self.generator.scene(memory, scores, request.where, drop=identity)
        lists = jnp.zeros((scores.shape[0], 1, self.slate_size), jnp.int32)
        likely = self.generator.log_probability(scene, lists, drop=identity)
        items = self.evaluator.read(request, drop=identity)
        return logits, likely, self.evaluator(items, lists, drop=identity)

    def teach_evaluator(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the loss of the first stage."""
        return evaluator_loss(self.evaluator, batch, drop=drop)

    def imitate(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the loss of the second stage, `-log pi` of shown lists."""
        return self._imitation(self._scene(batch, drop=drop), batch, drop=drop)

    def reinforce(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the third stage's loss: weighted `-A log pi` of drawn lists, and imitation."""
        scene, request = self._scene(batch, drop=identity), batch.request
        shape = (self.group_size, self.slate_size, self.table.shape[1] + 1)
        keys = ops.per_request_keys(key, request.index)
        luck = jax.vmap(lambda own: jax.random.uniform(own, shape))(keys)
        group = self.generator.write(jax.lax.stop_gradient(scene), luck, group=self.group_size)
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


def glorank(
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
    codes: int,
    code_levels: int,
    item_vectors: Array | np.ndarray,
    seed: int,
    score_entry: str,
    score_place: str,
) -> Reranker:
    """Build GloRank-style: an evaluator first, then shown lists, then reinforcement.

    Args:
      spec: column names and vocabulary sizes; `spec.item[0]` names the item column.
      width: D, a multiple of `heads`.
      layers: blocks over the candidates, in the decoder and in the evaluator, >= 1.
      heads: attention heads, everywhere.
      feed_forward: hidden width of each block's FFN.
      dropout: rate in [0, 1).
      history_layers: transformer blocks over the history, >= 1.
      slate_size: K, length of the lists, >= 1.
      group_size: G, drawn lists a request, >= 2.
      codes: size of each level's vocabulary, >= 2.
      code_levels: levels of k-means, >= 1.
      item_vectors: `float32 [V, E]`, E >= 1, by encoded item id.
      seed: of k-means.
      score_entry: "none", "concatenate", "add" or "weight"; see `nn.score_entry`. A late entry adds
        the score head's logit b to each candidate; without, there is no head.
      score_place: "late" (non-linear head), "late_linear" or "early".

    Raises:
      ValueError: the vectors do not fit the vocabulary, or a size, rate or name is outside its
        range.
    """
    check_heads(width, heads)
    check_positive(
        layers=layers,
        history_layers=history_layers,
        feed_forward=feed_forward,
        slate_size=slate_size,
        code_levels=code_levels,
    )
    if min(group_size, codes) < 2:
        raise ValueError(f"group_size {group_size} and codes {codes} must both be at least 2")
    vectors, items = np.asarray(item_vectors, np.float32), spec.sizes[spec.item[0]]
    if vectors.ndim != 2 or len(vectors) != items or vectors.shape[1] < 1:
        raise ValueError(
            f"item_vectors have shape {vectors.shape}, the items of {spec.item[0]!r} need "
            f"({items}, E) with E >= 1: use the vectors prepared with this data set"
        )
    table = semantic_ids(vectors, codes=codes, levels=code_levels, seed=seed)
    use = ScoreUse(score_entry, score_place)
    sizes = (width, layers, heads, feed_forward, history_layers, slate_size, group_size)
    module = GloRank(spec, *sizes, table, codes, use)
    lessons = (GloRank.teach_evaluator, GloRank.imitate, GloRank.reinforce)
    first, second, third = (module_loss(module, lesson, dropout=dropout) for lesson in lessons)
    stages = (
        Stage("evaluator", first, ("evaluator",), share=0.5),
        Stage("imitation", second, ("generator",), share=0.5),
        Stage("reinforcement", third, ("generator",), share=0.5),
    )
    scorer = wrap(module, dropout=dropout, visit=GloRank.touch)
    shown = arranging(module, GloRank.arrange)
    return scorer._replace(arrange=shown, stages=stages, needs_slate=True)
