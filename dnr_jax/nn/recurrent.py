"""Recurrent networks over padded sequences; padding does not change the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.nn.layers import Dense
from dnr_jax.types import Array


def _scan(
    step: Callable[[Any, Array], Any], start: Any, inputs: Array, where: Array, *, reverse: bool
) -> Array:
    """Run `step(state, input) -> state` over axis 1 and return every state, `[B, T, H]`.

    `state` may be a tuple of arrays, of which the first is the output. The state does not change
    where `where` is False.
    """

    def keep(state: Any, now: tuple[Array, Array]) -> tuple[Any, Array]:
        projected, real = now
        moved = step(state, projected)
        held = jax.tree.map(lambda new, old: jnp.where(real[:, None], new, old), moved, state)
        return held, jax.tree.leaves(held)[0]

    times = (jnp.swapaxes(inputs, 0, 1), where.T)
    return jnp.swapaxes(jax.lax.scan(keep, start, times, reverse=reverse)[1], 0, 1)


class GRU(nn.Module):
    """Gated recurrent unit (Cho et al. 2014, arXiv 1406.1078) in PyTorch's convention.

    `r, z = sigmoid(x W + b + h U + c)`, `n = tanh(x W_n + b_n + r (h U_n + c_n))`,
    `h' = (1 - z) n + z h`, from h = 0. The bias c_n is inside the reset product.

    Attributes:
      width: H, of the state.
      reverse: read from the last step to the first.
    """

    width: int
    reverse: bool = False

    @nn.compact
    def __call__(self, x: Array, where: Array) -> Array:
        """Return the states `float32 [B, T, H]` for `x [B, T, F]` under `where` `bool [B, T]`."""
        inputs = Dense(3 * self.width, name="input")(x)
        kernel = self.param("kernel", nn.initializers.orthogonal(), (self.width, 3 * self.width))
        bias = self.param("bias", nn.initializers.zeros, (1, 3 * self.width))

        def step(h: Array, now: Array) -> Array:
            from_input = jnp.split(now, 3, axis=-1)
            from_state = jnp.split(h @ kernel + bias, 3, axis=-1)
            r, z = (jax.nn.sigmoid(from_input[i] + from_state[i]) for i in (0, 1))
            n = jnp.tanh(from_input[2] + r * from_state[2])
            return (1 - z) * n + z * h

        start = jnp.zeros((x.shape[0], self.width), x.dtype)
        return _scan(step, start, inputs, where, reverse=self.reverse)


class LSTM(nn.Module):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), gates i, f, g, o as in PyTorch.

    Attributes:
      width: H, of the state.
      reverse: read from the last step to the first.
    """

    width: int
    reverse: bool = False

    @nn.compact
    def __call__(self, x: Array, where: Array) -> Array:
        """Return the states `float32 [B, T, H]` for `x [B, T, F]` under `where` `bool [B, T]`."""
        inputs = Dense(4 * self.width, name="input")(x)
        kernel = self.param("kernel", nn.initializers.orthogonal(), (self.width, 4 * self.width))

        def step(state: tuple[Array, Array], now: Array) -> tuple[Array, Array]:
            return _advance(now + state[0] @ kernel, state[1])

        zeros = jnp.zeros((x.shape[0], self.width), x.dtype)
        return _scan(step, (zeros, zeros), inputs, where, reverse=self.reverse)


class LSTMCell(nn.Module):
    """One step of `LSTM`, with the same parameters, for loops that choose their next input.

    Attributes:
      width: H, of the state.
    """

    width: int

    @nn.compact
    def __call__(self, state: tuple[Array, Array], x: Array) -> tuple[Array, Array]:
        """Return the next `(h, c)`, `float32 [..., H]` each, for `x` `float32 [..., F]`."""
        inputs = Dense(4 * self.width, name="input")(x)
        kernel = self.param("kernel", nn.initializers.orthogonal(), (self.width, 4 * self.width))
        return _advance(inputs + state[0] @ kernel, state[1])


def _advance(gates: Array, cell: Array) -> tuple[Array, Array]:
    """Return an LSTM's next `(h, c)` for gates `[..., 4H]`, the sum of input and state parts."""
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell
