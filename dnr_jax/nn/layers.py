"""Linear layer, layer norm, and the fully connected block made of both.

The first two are those of `flax.linen`, with the same parameters, names and values, computed so
that their gradients are cheap on a CPU too. Only the order of the sums differs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.nn.dropout import Drop
from dnr_jax.types import Array


def product(x: Array, kernel: Array) -> Array:
    """Multiply `x` `[..., F]` by `kernel` `[F, G]` as a matrix of rows.

    The gradient of the kernel is then a product of two matrices. With three axes, XLA for CPU
    computes it as a sum over two axes with a transposed result, which is three times slower.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


class Dense(nn.Dense):
    """`nn.Dense` on a matrix of rows, for the reason in `product`."""

    def __call__(self, x: Array) -> Array:
        """Map `[..., F]` to `[..., features]`."""
        rows: Array = super().__call__(x.reshape(-1, x.shape[-1]))
        return rows.reshape(*x.shape[:-1], self.features)


class LayerNorm(nn.Module):
    """`nn.LayerNorm` over the last axis: `scale (x - mean) / sqrt(var + 1e-6) + bias`."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalise `float32 [..., D]`."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        last = (*[1] * (x.ndim - 1), -1)
        return _normalised(x, scale.reshape(last), bias.reshape(last))


class MLP(nn.Module):
    """Hidden layers of Linear, ReLU, Dropout, LayerNorm, then a linear one, as in the group's code.

    Attributes:
      hidden: width of each hidden layer, at least one.
      output: width of the result.
    """

    hidden: tuple[int, ...]
    output: int

    @nn.compact
    def __call__(self, x: Array, *, drop: Drop) -> Array:
        """Map `float32 [..., F]` to `float32 [..., output]`."""
        for width in self.hidden:
            x = LayerNorm()(drop(nn.relu(Dense(width)(x))))
        return Dense(self.output)(x)


_EPSILON = 1e-6


@jax.custom_vjp
def _normalised(x: Array, scale: Array, bias: Array) -> Array:
    return _forward(x, scale, bias)[0]


def _forward(x: Array, scale: Array, bias: Array) -> tuple[Array, tuple[Array, ...]]:
    mean = _mean(x)
    centred = x - mean  # centred before squaring: a difference of large squares loses precision
    slope = jax.lax.rsqrt(_mean(centred * centred) + _EPSILON)
    return centred * (slope * scale) + bias, (x, mean, slope, scale)


def _backward(saved: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    x, mean, slope, scale = saved
    unit = (x - mean) * slope
    pull = g * scale
    to_x = slope * (pull - _mean(pull) - unit * _mean(pull * unit))
    batch = tuple(range(g.ndim - 1))
    return to_x, (g * unit).sum(batch, keepdims=True), g.sum(batch, keepdims=True)


def _mean(x: Array) -> Array:
    """Average the last axis and keep it.

    On a CPU a matrix product is several times faster than a sum. Elsewhere it would keep XLA from
    fusing the sum with the operations around it, and XLA for GPU (of jax 0.10.2) fails to compile
    some of these products.
    """
    mean: Array = jax.lax.platform_dependent(x, cpu=_mean_by_product, default=_mean_by_sum)
    return mean


def _mean_by_sum(x: Array) -> Array:
    return x.mean(-1, keepdims=True)


def _mean_by_product(x: Array) -> Array:
    width = x.shape[-1]
    means = x.reshape(-1, width) @ jnp.full((width, 1), 1.0 / width, x.dtype)
    return means.reshape(*x.shape[:-1], 1)


_normalised.defvjp(_forward, _backward)
