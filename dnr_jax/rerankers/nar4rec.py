"""NAR4Rec: a generator that fills all places of a list at once, and an evaluator that chooses.

Ren et al. 2024, arXiv 2402.06871. The generator is `nn.matching.MatchingGenerator`, trained by
likelihood of shown lists of high utility and unlikelihood of the others, plus a contrastive loss of
the item states. The shown list is the evaluator's choice among contrastive decodings.

"-style" in parts, as the paper's text was not at hand. Ours: the scale 1/sqrt(D), two post-norm
blocks a layer of the position encoder, SimCTG's contrastive loss with its margin, the penalties a,
and the scorer `log mean_k exp M_ik` that DNR and the binary cross-entropy train.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import arranging, module_loss, wrap
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.list_evaluator import ListEvaluator, evaluator_loss, list_value
from dnr_jax.nn.lists import score_list
from dnr_jax.nn.matching import (
    MatchingGenerator,
    fill_places,
    keep_best,
    matching_loss,
    mean_over_places,
)
from dnr_jax.nn.score_entry import ScoreUse
from dnr_jax.nn.sizes import check_heads, check_positive
from dnr_jax.types import Array, Batch, FeatureSpec, Memory, Request, Reranker, Stage

# Of SimCTG's contrastive loss (Su et al. 2022, arXiv 2202.06417).
MARGIN = 0.5
# a: one decoding each.
PENALTIES = (0.0, 0.1, 0.2, 0.4)


class NAR4Rec(nn.Module):
    """The module behind `nar4rec`; see there for the attributes."""

    spec: FeatureSpec
    width: int
    layers: int
    heads: int
    feed_forward: int
    history_layers: int
    slate_size: int
    utility_threshold: float
    contrast: float
    scores: ScoreUse

    def setup(self) -> None:
        """Make generator and evaluator, which share no parameters."""
        sizes = (self.layers, self.heads, self.feed_forward, self.history_layers)
        self.generator = MatchingGenerator(
            self.spec, self.width, *sizes, self.slate_size, self.scores
        )
        self.evaluator = ListEvaluator(self.spec, self.width, self.slate_size, *sizes)

    def encode(self, request: Request, *, drop: Drop) -> tuple[Memory, Array]:
        """Return the generator's memory and the evaluator's item states."""
        return self.generator.encode(request, drop=drop), self.evaluator.read(request, drop=drop)

    def decode(
        self, memory: tuple[Memory, Array], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the generator's logits `[B, N]`."""
        return self.generator.decode(memory[0], scores, where, drop=drop)

    def arrange(self, memory: tuple[Memory, Array], scores: Array, where: Array) -> Array:
        """Order the candidates by the best contrastive decoding, the rest by their logits."""
        items, matching = self.generator.match(memory[0], scores, where, drop=identity)
        lists = contrastive_lists(matching, items, where)
        values = list_value(self.evaluator(memory[1], lists, drop=identity), lists)
        return score_list(keep_best(lists, values), mean_over_places(matching), where)

    def touch(self, request: Request, scores: Array) -> Array:
        """Run generator and evaluator once, so that `init` makes all parameters."""
        return self.arrange(self.encode(request, drop=identity), scores, request.where)

    def teach_evaluator(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the loss of the first stage."""
        return evaluator_loss(self.evaluator, batch, drop=drop)

    def teach_generator(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the loss of the second stage."""
        request = batch.request
        memory = self.generator.encode(request, drop=drop)
        items, matching = self.generator.match(memory, batch.scores, request.where, drop=drop)
        fit = matching_loss(matching, batch, threshold=self.utility_threshold)
        return fit + self.contrast * contrastive_loss(items, request.where)


def similarity(items: Array) -> Array:
    """Compute the cosines of all pairs of states: `[B, N, D]` to `float32 [B, N, N]`."""
    squares = jnp.square(items).sum(axis=-1, keepdims=True)
    directions = items * jax.lax.rsqrt(squares + 1e-12)
    return directions @ jnp.swapaxes(directions, 1, 2)


def contrastive_loss(items: Array, where: Array) -> Array:
    """Compute the mean over pairs i, j of `max(0, MARGIN - 1 + cos(X_i, X_j))`; 0 without pairs."""
    apart = ~jnp.eye(where.shape[1], dtype=bool)[None]
    pairs = where[:, :, None] & where[:, None] & apart
    return ops.weighted_mean(jax.nn.relu(MARGIN - 1 + similarity(items)), pairs)


def contrastive_lists(matching: Array, items: Array, where: Array) -> Array:
    """Fill places one by one by the best `(1 - a) phat_ik - a max_{j chosen} cos(X_i, X_j)`.

    Args:
      matching: M, `float32 [B, N, K]`.
      items: X, `float32 [B, N, D]`.
      where: `bool [B, N]`.

    Returns:
      `int32 [B, A, K]`, a list for each a of `PENALTIES`, without repeats; -1 = no item is left.
    """
    likely = jnp.exp(ops.masked_log_softmax(matching, where[..., None], axis=1))
    cosines = similarity(items)
    return jnp.stack([fill_places((1 - a) * likely, a * cosines, where) for a in PENALTIES], axis=1)


def nar4rec(
    spec: FeatureSpec,
    *,
    width: int,
    layers: int,
    heads: int,
    feed_forward: int,
    dropout: float,
    history_layers: int,
    slate_size: int,
    utility_threshold: float,
    contrast: float,
    score_entry: str,
    score_place: str,
) -> Reranker:
    """Build NAR4Rec (Ren et al. 2024, arXiv 2402.06871): first the evaluator, then the generator.

    Args:
      spec: column names and vocabulary sizes.
      width: D, a multiple of `heads`.
      layers: blocks over the candidates, over the places, and over the list in the evaluator.
      heads: attention heads, everywhere.
      feed_forward: hidden width of each block's FFN.
      dropout: rate in [0, 1).
      history_layers: transformer blocks over the history, >= 1.
      slate_size: K, length of the lists, >= 1; the shown lists of the data have it too.
      utility_threshold: tau, a shown list is an example to follow if its labels sum to this much,
        else one to avoid. Take the training set's median (or another quantile) of that sum: where
        nearly every shown list has a positive, tau = 1 leaves hardly any list to avoid.
      contrast: weight of the contrastive loss, >= 0.
      score_entry: "none", "concatenate", "add" or "weight"; see `nn.score_entry`.
      score_place: "late" (non-linear head, added to M), "late_linear" or "early".

    Raises:
      ValueError: a size, rate, weight or name is outside its range.
    """
    check_heads(width, heads)
    check_positive(
        layers=layers,
        history_layers=history_layers,
        feed_forward=feed_forward,
        slate_size=slate_size,
    )
    if not contrast >= 0:
        raise ValueError(f"contrast {contrast} must be at least 0: it weighs a loss")
    use = ScoreUse(score_entry, score_place)
    sizes = (width, layers, heads, feed_forward, history_layers, slate_size)
    module = NAR4Rec(spec, *sizes, utility_threshold, contrast, use)
    lessons = (NAR4Rec.teach_evaluator, NAR4Rec.teach_generator)
    first, second = (module_loss(module, lesson, dropout=dropout) for lesson in lessons)
    stages = (
        Stage("evaluator", first, ("evaluator",), share=0.5),
        Stage("generator", second, ("generator",)),
    )
    scorer = wrap(module, dropout=dropout, visit=NAR4Rec.touch)
    shown = arranging(module, NAR4Rec.arrange)
    return scorer._replace(arrange=shown, stages=stages, needs_slate=True)
