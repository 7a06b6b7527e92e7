"""The embedding of a diffusion's step number."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dnr_jax.nn.layers import Dense
from dnr_jax.types import Array

# The frequencies are made for 1000 steps.
_FINEST = 1000.0
_LONGEST_PERIOD = 10000.0


class StepEmbedding(nn.Module):
    """Embed step numbers: sinusoids of `1000 t / T`, then Dense(4 D), SiLU, Dense(D).

    Attributes:
      width: D.
      total: T.
    """

    width: int
    total: int

    @nn.compact
    def __call__(self, steps: Array, dtype: Any) -> Array:
        """Map `steps` `[B]` to `[B, D]` of `dtype`."""
        half = (self.width + 1) // 2
        frequencies = _LONGEST_PERIOD ** (-np.arange(half, dtype=np.float32) / half)
        angles = (steps * (_FINEST / self.total))[:, None] * frequencies[None]
        waves = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
        return Dense(self.width)(nn.silu(Dense(4 * self.width)(waves.astype(dtype))))
