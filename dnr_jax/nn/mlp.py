"""The fully connected block of the group's code: Linear, ReLU, Dropout, LayerNorm, then Linear."""

from __future__ import annotations

from flax import linen as nn

from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.layers import Dense, LayerNorm
from dnr_jax.types import Array


class MLP(nn.Module):
    """Hidden layers of Linear, ReLU, Dropout, LayerNorm; a linear layer last.

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
