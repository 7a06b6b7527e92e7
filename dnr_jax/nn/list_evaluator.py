"""The list evaluator R: predicts the clicks of a list from its items and their order.

Generator-evaluator methods share it. It has its own parameters, so it can be trained first and then
frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.nn.adapter import Lesson, taught
from dnr_jax.nn.attention import Transformer
from dnr_jax.nn.dropout import Drop, grouped, identity
from dnr_jax.nn.layers import Dense
from dnr_jax.nn.losses import bce
from dnr_jax.nn.slates import take_items
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.types import Array, Batch, FeatureSpec, Memory, Request, Reranker


class ListEvaluator(nn.Module):
    """Bidirectional transformer over `h_{l_k} + p_k`, with one click logit per position.

    Attributes:
      spec: column names and vocabulary sizes.
      trunk: sizes; it has `layers` blocks over the list. It reads no scores.
      slate_size: K, length of the lists.
    """

    spec: FeatureSpec
    trunk: Trunk
    slate_size: int

    def setup(self) -> None:
        """Make the blocks."""
        width = self.trunk.width
        self.request_encoder = RequestEncoder(self.spec, self.trunk)
        self.fusion = Fusion(width)
        initial = nn.initializers.normal(0.02)
        self.places = self.param("places", initial, (self.slate_size, width))
        self.list_encoder = Transformer(*self.trunk.blocks, causal=False)
        self.head = Dense(1)

    def read(self, request: Request, *, drop: Drop) -> Array:
        """Return the fused candidate states h `float32 [B, N, D]`, once for all lists."""
        return self.fusion(*self.request_encoder(request, drop=drop), drop=drop)

    def __call__(self, items: Array, lists: Array, *, drop: Drop) -> Array:
        """Return click logits `float32 [B, L, K]` of `lists` `int32 [B, L, K]`.

        `items` is the result of `read`. An empty place (-1) is not seen by the others; its own
        logit is meaningless.
        """
        flat = lists.reshape(-1, self.slate_size)
        tokens = take_items(items, lists).reshape(*flat.shape, -1) + self.places[None]
        encoded = self.list_encoder(tokens, flat >= 0, drop=grouped(drop, lists.shape[1]))
        return self.head(encoded)[..., 0].reshape(lists.shape)


def judge(evaluator: ListEvaluator, request: Request, lists: Array) -> Array:
    """Return an evaluator's logits `[B, L, K]` of `lists` `[B, L, K]`, without dropout."""
    return evaluator(evaluator.read(request, drop=identity), lists, drop=identity)


def list_value(logits: Array, lists: Array) -> Array:
    """Compute R(l) = sum_k sigmoid(r_k), the expected clicks: `[..., K]` logits to `[...]`."""
    return jnp.where(lists >= 0, jax.nn.sigmoid(logits), 0.0).sum(axis=-1)


def slate_labels(batch: Batch) -> tuple[Array, Array]:
    """Return the shown list's labels and weights, `float32 [B, K]` each; weight 0 = no item."""
    weights = take_items(batch.weights, batch.slate) * (batch.slate >= 0)
    return take_items(batch.labels, batch.slate) * (batch.slate >= 0), weights


def evaluator_loss(evaluator: ListEvaluator, batch: Batch, *, drop: Drop) -> Array:
    """Compute the loss of R, the binary cross-entropy of the shown list's clicks."""
    items = evaluator.read(batch.request, drop=drop)
    logits = evaluator(items, batch.slate[:, None], drop=drop)[:, 0]
    return bce(logits, *slate_labels(batch))


def generator_evaluator(
    module: nn.Module,
    *lessons: Lesson,
    dropout: float,
    run_all: Callable[[Any, Request, Array], Any] | None = None,
    arrange: Callable[[Any, Memory, Array, Array], Array] | None = None,
) -> Reranker:
    """Make a `Reranker` whose evaluator is trained first, for half the epochs, and then frozen.

    Args:
      module: an `EncoderDecoder` whose submodule `evaluator` is a `ListEvaluator`.
      lessons: the stages that follow; none of them updates the group "evaluator".
      dropout: rate in [0, 1).
      run_all: see `taught`.
      arrange: see `taught`.
    """
    first = Lesson("evaluator", _teach_evaluator, ("evaluator",), share=0.5)
    return taught(module, first, *lessons, dropout=dropout, run_all=run_all, arrange=arrange)


def _teach_evaluator(module: Any, batch: Batch, *, drop: Drop, key: Array) -> Array:
    return evaluator_loss(module.evaluator, batch, drop=drop)
