"""Request -> user state u and candidate states h: the input layers that list models share.

Follows the encoder of the DNR paper group's public code (GFN4Rec), with a padding mask added and
history tokens of width D instead of 2D (feedback is summed in, not concatenated).
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.nn.attention import Transformer
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.embeddings import FeatureEmbedding
from dnr_jax.nn.layers import MLP, Dense, LayerNorm
from dnr_jax.nn.trunk import Trunk
from dnr_jax.types import Array, FeatureSpec, Request


class HistoryEncoder(nn.Module):
    """Causal transformer over `LN(dropout(e_l + f_l + p_l))`; the last position is the result.

    Positions count from the most recent event, so more padding changes nothing. The table has T
    rows, where T is the history length that `init` saw.

    Attributes:
      trunk: sizes; it has `history_layers` blocks.
    """

    trunk: Trunk

    @nn.compact
    def __call__(self, events: Array, where: Array, *, drop: Drop) -> Array:
        """Map `events` `float32 [B, T, D]` to `float32 [B, D]`; 0 for an empty history."""
        initial = nn.initializers.normal(0.02)
        from_latest = self.param("positions", initial, events.shape[1:])
        tokens = events + from_latest[::-1][None]
        tokens = LayerNorm()(drop(tokens))
        sizes = (self.trunk.history_layers, self.trunk.heads, self.trunk.feed_forward)
        encoder = Transformer(*sizes, causal=True)
        last = encoder(tokens, where, drop=drop, last_only=True)[:, 0]
        return jnp.where(where.any(axis=1, keepdims=True), last, 0.0)


class RequestEncoder(nn.Module):
    """Encode a request into u `[B, D]` and item encodings e `[B, N, D]`.

    `e_i = LN(W LN(E[i]))`, with the same weights for candidates and history items;
    `u = LN(DNN([history, user, context]))`.

    With `trunk.matching`, `e_i + W_m (q * e_i)` replaces e_i, where q is the last state of the
    history. A model that sums user and item states has to learn the product first, from which
    sequence models (SASRec) start; with this term `q . e_i` is one direction of the candidate's
    encoding. It is ours, and in none of the list models' papers: a control that separates the
    effect of the missing product from that of list context.

    Attributes:
      spec: column names and vocabulary sizes.
      trunk: sizes.
    """

    spec: FeatureSpec
    trunk: Trunk

    @nn.compact
    def __call__(self, request: Request, *, drop: Drop) -> tuple[Array, Array]:
        """Return `(u [B, D], e [B, N, D])`."""
        width = self.trunk.width
        parts = FeatureEmbedding(self.spec, width)(request)
        both = jnp.concatenate([parts.history_items, parts.items], axis=1)
        both = LayerNorm()(Dense(width)(LayerNorm()(both)))
        history, items = jnp.split(both, [parts.history_items.shape[1]], axis=1)
        latest = HistoryEncoder(self.trunk)(
            history + parts.history_events, request.history_where, drop=drop
        )
        if self.trunk.matching:
            match = Dense(width, use_bias=False, name="match")
            items = items + match(latest[:, None] * items)
        known = [latest, parts.user] + ([parts.context] if self.spec.context else [])
        state = MLP((width,), width)(jnp.concatenate(known, axis=-1), drop=drop)
        return LayerNorm()(state), items


class Fusion(nn.Module):
    """Personalise the candidates: `h_i = DNN(LN(W_u u) + LN(W_i e_i))`, one LN for both.

    Attributes:
      width: D.
    """

    width: int

    @nn.compact
    def __call__(self, user: Array, items: Array, *, drop: Drop) -> Array:
        """Map `user [B, D]` and `items [B, N, D]` to `h [B, N, D]`."""
        norm = LayerNorm()
        mine = norm(Dense(self.width, name="user")(user))[:, None]
        joined = mine + norm(Dense(self.width, name="item")(items))
        return MLP((self.width,), self.width)(joined, drop=drop)
