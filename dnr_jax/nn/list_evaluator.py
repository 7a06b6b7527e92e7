"""The list evaluator R: predicts the clicks of a list from its items and their order.

Generator-evaluator methods share it. It stands on parameters of its own, so that it can be trained
first and then frozen.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.nn.attention import Transformer
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.layers import Dense
from dnr_jax.nn.lists import take_items
from dnr_jax.nn.losses import bce
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.types import Array, Batch, FeatureSpec, Request


class ListEvaluator(nn.Module):
    """Bidirectional transformer over `h_{l_k} + p_k`, with one click logit a position.

    Attributes:
      spec: column names and vocabulary sizes.
      width: D.
      slate_size: K, length of the lists.
      layers, heads, feed_forward, history_layers: see `prm`.
    """

    spec: FeatureSpec
    width: int
    slate_size: int
    layers: int
    heads: int
    feed_forward: int
    history_layers: int

    def setup(self) -> None:
        """Make the blocks."""
        self.request_encoder = RequestEncoder(
            self.spec, self.width, self.history_layers, self.heads, self.feed_forward
        )
        self.fusion = Fusion(self.width)
        initial = nn.initializers.normal(0.02)
        self.places = self.param("places", initial, (self.slate_size, self.width))
        self.list_encoder = Transformer(self.layers, self.heads, self.feed_forward, causal=False)
        self.head = Dense(1)

    def read(self, request: Request, *, drop: Drop) -> Array:
        """Return the fused candidate states h `float32 [B, N, D]`, once for all lists."""
        return self.fusion(*self.request_encoder(request, drop=drop), drop=drop)

    def __call__(self, items: Array, lists: Array, *, drop: Drop) -> Array:
        """Return click logits `float32 [B, L, K]` of `lists` `int32 [B, L, K]`.

        `items` is what `read` returned. An empty place (-1) is not seen by the others; its own
        logit has no meaning.
        """
        flat = lists.reshape(-1, self.slate_size)
        tokens = take_items(items, lists).reshape(*flat.shape, self.width) + self.places[None]
        encoded = self.list_encoder(tokens, flat >= 0, drop=drop)
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
    """Compute the binary cross-entropy of the shown list's clicks: how R is trained."""
    items = evaluator.read(batch.request, drop=drop)
    logits = evaluator(items, batch.slate[:, None], drop=drop)[:, 0]
    return bce(logits, *slate_labels(batch))
