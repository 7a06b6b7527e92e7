"""OCPM: click-through rates of the items of a page, in the context of this and earlier pages.

The omnidirectional context-aware prediction module of PIER (Shi et al. 2023, arXiv 2302.03487):
attention within the page (OAU), of the page to the user's pages (TAU), and a network of both, of
the item and of its base score (CPU).

Deviations from the authors' code: OAU attends over item encodings with learned places; theirs
attends within each attribute and then across, and knows places by the weights that join them to a
page. A page is the mean of its items' states. TAU is scaled by 1/sqrt(D). CPU has one hidden layer
of D; theirs has 128 and 32. The learned places are also the PE of the hash.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.nn.attention import Attention
from dnr_jax.nn.dropout import Drop, grouped
from dnr_jax.nn.layers import MLP, Dense, LayerNorm
from dnr_jax.nn.slates import take_items
from dnr_jax.rerankers.pier import page_orders as fpsm
from dnr_jax.types import Array


class History(NamedTuple):
    """The user's latest pages, latest first.

    Attributes:
      pages: OAU's states of whole pages, `float32 [B, P, D]`.
      signatures: `float32 [B, P, bits]`.
      where: `bool [B, P]`.
    """

    pages: Array
    signatures: Array
    where: Array


def target_attention(targets: Array, pages: Array, where: Array) -> Array:
    """Compute TAU: `sum_p softmax_p(t . v_p / sqrt(D)) v_p`, 0 without pages.

    Args:
      targets: t, `float32 [B, Q, D]`.
      pages: v, `float32 [B, P, D]`.
      where: `bool [B, P]`.

    Returns:
      `float32 [B, Q, D]`.
    """
    values = pages[:, :, None]
    seen = where[:, None, None]
    mixed = jax.nn.dot_product_attention(targets[:, :, None], values, values, mask=seen)[:, :, 0]
    return jnp.where(where.any(axis=1)[:, None, None], mixed, 0.0)


class PageModel(nn.Module):
    """OCPM: click-through rates of a page's items in their context.

    Attributes:
      width: D.
      slate_size: K.
      heads: heads of the attention within a page.
    """

    width: int
    slate_size: int
    heads: int

    def setup(self) -> None:
        """Make the blocks."""
        initial = nn.initializers.normal(0.02)
        self.places = self.param("places", initial, (self.slate_size, self.width))
        self.attention = Attention(self.heads)
        self.norm = LayerNorm()
        # The hidden layer of CPU, split by parts of its input: page and item parts are reused.
        self.of_page = Dense(self.width)
        self.of_state = Dense(self.width, use_bias=False)
        self.of_item = MLP((self.width,), self.width)
        self.output = Dense(1)

    def read(self, items: Array, where: Array, *, drop: Drop) -> tuple[Array, Array]:
        """Compute OAU of pages `[B, L, K, D]`: states `[B, L, K, D]`, their means `[B, L, D]`."""
        flat = (-1, *items.shape[2:])
        tokens = (items + self.places[None, None]).reshape(flat)
        mixed = self.attention(tokens, tokens, where.reshape(flat[:2]), causal=False)
        states = self.norm(tokens + grouped(drop, items.shape[1])(mixed)).reshape(items.shape)
        count = jnp.maximum(where.sum(axis=2), 1)
        return states, jnp.where(where[..., None], states, 0.0).sum(axis=2) / count[..., None]

    def remember(self, met: Array, columns: Array, where: Array, *, drop: Drop) -> History:
        """Read the history: items e_l and their columns g_l `[B, T, D]` under `where [B, T]`."""
        real, items, both = (
            fpsm.cut_pages(part, self.slate_size) for part in (where, met, met + columns)
        )
        places = jax.lax.stop_gradient(self.places)
        signatures = fpsm.page_signatures(jax.lax.stop_gradient(items), real, places)
        return History(self.read(both, real, drop=drop)[1], signatures, real.any(axis=2))

    def propose(
        self, items: Array, history: History, page: Array, count: int
    ) -> tuple[fpsm.Proposals, fpsm.Proposals]:
        """Compute FPSM: the `count` nearest and farthest orders of a page `int32 [B, K]`."""
        orders = fpsm.page_orders(self.slate_size)
        taken = jnp.where((page >= 0)[..., None], take_items(items, page), 0.0)
        signatures = fpsm.order_signatures(*jax.lax.stop_gradient((taken, self.places)), orders)
        weights = jnp.array(fpsm.PAGE_WEIGHTS)[None, : history.where.shape[1]] * history.where
        distances = fpsm.page_distances(signatures, history.signatures, weights)
        return fpsm.nearest_and_farthest(page, distances, orders, count)

    def __call__(
        self, items: Array, base: Array, history: History, pages: Array, *, drop: Drop
    ) -> Array:
        """Return click logits of pages `int32 [B, L, K]`; those of empty places are meaningless.

        Args:
          items: e, `float32 [B, N, D]`.
          base: b, `float32 [B, N]` in [0, 1].
          history: the user's pages.
          pages: indices into N, -1 = no item.
          drop: dropout.
        """
        states, whole = self.read(take_items(items, pages), pages >= 0, drop=drop)
        interest = target_attention(whole, history.pages, history.where)
        context = self.of_page(jnp.concatenate([whole, interest], axis=-1))
        alone = self.of_item(jnp.concatenate([items, base[..., None]], axis=-1), drop=drop)
        hidden = context[:, :, None] + self.of_state(states) + take_items(alone, pages)
        return self.output(nn.relu(hidden))[..., 0]
