"""Row-wise Adagrad: it keeps one number per row, where Adam keeps two per parameter."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dnr_jax.types import Array


class RowSquares(NamedTuple):
    """The state: `float32 [V, 1]` for each table, the sum of its rows' mean squared gradients.

    A table of single numbers has `[V]`.
    """

    squares: Any


def scale_by_rowwise_adagrad(eps: float) -> optax.GradientTransformation:
    """Divide each row's gradient by the root of its accumulated squared gradients.

    `s_r += mean_d g_rd^2`, `g_r / (sqrt(s_r) + eps)`: the exact row-wise Adagrad of FBGEMM and
    torchrec. A row whose gradient is 0 keeps its state.

    Args:
      eps: floor of the denominator, > 0.
    """

    def init(params: Any) -> RowSquares:
        return RowSquares(jax.tree.map(lambda table: jnp.zeros_like(_row_means(table)), params))

    def update(gradients: Any, state: RowSquares, params: Any = None) -> tuple[Any, RowSquares]:
        del params
        squares = jax.tree.map(lambda s, g: s + _row_means(g * g), state.squares, gradients)
        scaled = jax.tree.map(lambda g, s: g / (jnp.sqrt(s) + eps), gradients, squares)
        return scaled, RowSquares(squares)

    return optax.GradientTransformation(init, update)


def _row_means(table: Array) -> Array:
    return table if table.ndim < 2 else jnp.mean(table, axis=-1, keepdims=True)
