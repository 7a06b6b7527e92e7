"""NAR4Rec: a generator that fills all places of a list at once, and an evaluator that chooses.

Ren et al. 2024, arXiv 2402.06871. The generator (`matching`) is trained by the likelihood of shown
lists of high utility and the unlikelihood of the others, plus a contrastive loss of the item
states. The evaluator chooses the displayed list among contrastive decodings.

Parts are our own, as the paper's text was not available: the likelihood as a mean over the judged
places of a batch where the paper has a sum per list, the scale 1/sqrt(D),
two post-norm blocks per layer of the position encoder, SimCTG's contrastive loss with its margin,
the penalties a, and the scorer `log mean_k exp M_ik` that DNR and the binary cross-entropy train.

`matching=True` puts the product of history and candidate into h (`nn.user_state`), which the
paper does not have.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import Lesson
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.list_evaluator import ListEvaluator, generator_evaluator, list_value
from dnr_jax.nn.slates import keep_best, score_list
from dnr_jax.nn.trunk import Trunk
from dnr_jax.rerankers.nar4rec.matching import (
    MatchingGenerator,
    fill_places,
    matching_loss,
    mean_over_places,
)
from dnr_jax.settings import knob
from dnr_jax.types import Array, Batch, FeatureSpec, Memory, Request, Reranker, Task

# The margin of SimCTG's contrastive loss (Su et al. 2022, arXiv 2202.06417).
MARGIN = 0.5
# The values of a; each gives one decoding.
PENALTIES = (0.0, 0.1, 0.2, 0.4)


@dataclass(frozen=True, kw_only=True)
class NAR4RecSettings(Trunk):
    """Knobs of NAR4Rec.

    For `utility_threshold` take the median (or another quantile), over the training set, of the sum
    of a shown list's labels. If nearly every shown list has a positive, a threshold of 1 leaves
    hardly any bad list.
    """

    utility_threshold: float = knob(3.0, "sum of labels from which a shown list is good")
    contrast: float = knob(0.1, "weight of the loss that keeps candidates apart", at_least=0)


class NAR4Rec(nn.Module):
    """The module behind `nar4rec`."""

    spec: FeatureSpec
    settings: NAR4RecSettings
    slate_size: int

    def setup(self) -> None:
        """Make generator and evaluator, which share no parameters."""
        self.generator = MatchingGenerator(self.spec, self.settings, self.slate_size)
        self.evaluator = ListEvaluator(self.spec, self.settings, self.slate_size)

    def encode(self, request: Request, *, drop: Drop) -> tuple[Memory, Array]:
        """Return the generator's memory and the evaluator's item states."""
        return self.generator.encode(request, drop=drop), self.evaluator.read(request, drop=drop)

    def decode(
        self, memory: tuple[Memory, Array], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the generator's logits `[B, N]`."""
        return self.generator.decode(memory[0], scores, where, drop=drop)

    def arrange(self, memory: tuple[Memory, Array], scores: Array, where: Array) -> Array:
        """Put the best contrastive decoding first, then the rest by their logits."""
        items, matching = self.generator.match(memory[0], scores, where, drop=identity)
        lists = contrastive_lists(matching, items, where)
        values = list_value(self.evaluator(memory[1], lists, drop=identity), lists)
        return score_list(keep_best(lists, values), mean_over_places(matching), where)

    def teach_generator(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the loss of the second stage."""
        request = batch.request
        memory = self.generator.encode(request, drop=drop)
        items, matching = self.generator.match(memory, batch.scores, request.where, drop=drop)
        fit = matching_loss(matching, batch, threshold=self.settings.utility_threshold)
        return fit + self.settings.contrast * contrastive_loss(items, request.where)


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
    """Fill places one by one with the best `(1 - a) phat_ik - a max_{j chosen} cos(X_i, X_j)`.

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


def nar4rec(task: Task, settings: NAR4RecSettings) -> Reranker:
    """Build NAR4Rec (Ren et al. 2024, arXiv 2402.06871): first the evaluator, then the generator.

    Each of the encoders of candidates, of places and of the evaluator's list has `layers` blocks. A
    late score is added to M.
    """
    return generator_evaluator(
        NAR4Rec(task.spec, settings, task.slate_size),
        Lesson("generator", NAR4Rec.teach_generator, ("generator",)),
        dropout=settings.dropout,
        arrange=NAR4Rec.arrange,
    )
