"""Masked multi-head attention and the post-norm transformer, for lists, histories and sets."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.layers import Dense, LayerNorm, product
from dnr_jax.types import Array


class Attention(nn.Module):
    """Multi-head attention with one fused projection (Vaswani et al. 2017, arXiv 1706.03762).

    Attributes:
      heads: number of heads; divides the width.
    """

    heads: int

    @nn.compact
    def __call__(self, queries: Array, keys: Array, where: Array, *, causal: bool) -> Array:
        """Attend from `queries` to the real `keys`.

        If both are the same array (self-attention), q, k and v are projected in one product. There
        is no dropout on the attention weights, since fused attention kernels have none.

        Args:
          queries: `float32 [B, Q, D]`.
          keys: `float32 [B, L, D]`.
          where: `bool [B, L]`, True = a key that may be seen. A row without any yields a finite
            but meaningless value.
          causal: let query i see keys <= i only.

        Returns:
          `float32 [B, Q, D]`.
        """
        width = queries.shape[-1]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (width, 3 * width))
        bias = self.param("bias", nn.initializers.zeros, (1, 1, 3 * width))
        if queries is keys:
            q, k, v = jnp.split(product(keys, kernel) + bias, 3, axis=-1)
        else:
            q = product(queries, kernel[:, :width]) + bias[..., :width]
            k, v = jnp.split(product(keys, kernel[:, width:]) + bias[..., width:], 2, axis=-1)
        q, k, v = (a.reshape(*a.shape[:2], self.heads, -1) for a in (q, k, v))
        mixed = attend(q, k, v, where, causal=causal)
        return Dense(width, name="output")(mixed.reshape(queries.shape))


class TransformerLayer(nn.Module):
    """Post-norm block: `Y = LN(Q + MHA(Q, K, K))`, then `LN(Y + FFN(Y))`.

    If `queries` and `keys` differ it is SetRank's MAB (Pang et al. 2020, arXiv 1912.05891).

    Attributes:
      heads: number of heads.
      feed_forward: hidden width of the FFN.
    """

    heads: int
    feed_forward: int

    @nn.compact
    def __call__(
        self, queries: Array, keys: Array, where: Array, *, causal: bool, drop: Drop
    ) -> Array:
        """Map `queries [B, Q, D]` by attention to the real `keys [B, L, D]`; see `Attention`.

        `drop` is applied to both residual branches and inside the FFN.
        """
        attended = Attention(self.heads)(queries, keys, where, causal=causal)
        x = LayerNorm()(queries + drop(attended))
        hidden = drop(nn.relu(Dense(self.feed_forward)(x)))
        return LayerNorm()(x + drop(Dense(x.shape[-1])(hidden)))


class Transformer(nn.Module):
    """A stack of `TransformerLayer` over one sequence or set.

    Attributes:
      layers: number of layers, >= 1.
      heads, feed_forward: see `TransformerLayer`.
      causal: let position i see positions <= i only.
    """

    layers: int
    heads: int
    feed_forward: int
    causal: bool

    @nn.compact
    def __call__(self, x: Array, where: Array, *, drop: Drop, last_only: bool = False) -> Array:
        """Encode `x` `float32 [B, L, D]` under `where` `bool [B, L]`.

        `last_only=True` returns only the last position, `[B, 1, D]`. It is the same as in the full
        result, but the last layer has one query instead of L.
        """
        for number in range(self.layers):
            layer = TransformerLayer(self.heads, self.feed_forward, name=f"layer_{number}")
            if last_only and number == self.layers - 1:
                # The last position sees every key, causal or not.
                return layer(x[:, -1:], x, where, causal=False, drop=drop)
            x = layer(x, x, where, causal=self.causal, drop=drop)
        return x


def attend(q: Array, k: Array, v: Array, where: Array, *, causal: bool) -> Array:
    """Compute softmax(q k' / sqrt(d)) v by heads (Vaswani et al. 2017, arXiv 1706.03762, Eq. 1).

    Args:
      q: `float32 [B, Q, H, d]`.
      k: `float32 [B, L, H, d]`.
      v: `float32 [B, L, H, d]`.
      where: `bool [B, L]`, keys that may be seen; a row without any yields the mean of v.
      causal: let query i see keys <= i only.

    Returns:
      `float32 [B, Q, H, d]`.
    """
    seen = where[:, None, None, :]
    if causal:
        seen = seen & np.tri(q.shape[1], k.shape[1], dtype=bool)[None, None]
    q, k, v = (a.swapaxes(1, 2) for a in (q * q.shape[-1] ** -0.5, k, v))
    return _mixed(q, k, v, seen).swapaxes(1, 2)


@jax.custom_vjp
def _mixed(q: Array, k: Array, v: Array, seen: Array) -> Array:
    """Mix the values; q, k, v are `[B, H, length, d]`, `seen` broadcasts to `[B, H, Q, L]`."""
    return _mixed_forward(q, k, v, seen)[0]


def _mixed_forward(q: Array, k: Array, v: Array, seen: Array) -> tuple[Array, tuple[Array, ...]]:
    similar = jnp.where(seen, _dot(q, k.swapaxes(2, 3)), ops.MASKED_LOGIT)
    shares = jnp.exp(similar - similar.max(axis=-1, keepdims=True))
    scale = 1.0 / shares.sum(axis=-1, keepdims=True)  # applied to d numbers instead of L
    shares = shares.astype(v.dtype)
    mixed = (_dot(shares, v) * scale).astype(q.dtype)
    return mixed, (q, k, v, shares, scale, mixed)


def _mixed_backward(saved: tuple[Array, ...], g: Array) -> tuple[Array | None, ...]:
    q, k, v, shares, scale, mixed = saved
    g = g * scale
    # sum_j p_j dp_j = g . mixed (Dao et al. 2022, arXiv 2205.14135, Eq. 4): d terms instead of L.
    slopes = shares * (_dot(g, v.swapaxes(2, 3)) - (g * mixed).sum(axis=-1, keepdims=True))
    slopes_by_key, shares_by_key = slopes.swapaxes(2, 3), shares.swapaxes(2, 3)
    gradients = _dot(slopes, k), _dot(slopes_by_key, q), _dot(shares_by_key, g.astype(v.dtype))
    return *(gradient.astype(q.dtype) for gradient in gradients), None


def _dot(a: Array, b: Array) -> Array:
    """Multiply in the dtype of `b`, sum in float32: softmax and its gradient lose no bits."""
    return jnp.matmul(a.astype(b.dtype), b, preferred_element_type=jnp.float32)


_mixed.defvjp(_mixed_forward, _mixed_backward)
