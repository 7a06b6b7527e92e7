"""The fully connected block of the group's code: Linear, ReLU, Dropout, LayerNorm, then Linear."""

from __future__ import annotations

from flax import linen as nn

from dnr_jax.types import Array


class MLP(nn.Module):
    """Hidden layers of Linear, ReLU, Dropout, LayerNorm; a linear layer last.

    Attributes:
      hidden: width of each hidden layer, at least one.
      output: width of the result.
      dropout: rate in [0, 1).
    """

    hidden: tuple[int, ...]
    output: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Map `float32 [..., F]` to `float32 [..., output]`."""
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
            x = nn.Dropout(self.dropout)(x, deterministic=not train)
            x = nn.LayerNorm()(x)
        return nn.Dense(self.output)(x)
