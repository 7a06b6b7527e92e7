"""Learned positions, by which a list model may know the order of its candidates."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.types import Array

# none: a set. rank: place in the order of the scores. index: place in storage (shuffled, so it
# means nothing unless the data set's order does).
POSITIONS = ("none", "rank", "index")


class ListPositions(nn.Module):
    """Add a learned embedding of each candidate's position.

    The table has one row per candidate of the batch that `init` saw, so N is fixed unless `kind`
    is "none". Ranks have no gradient with respect to the scores.

    Attributes:
      kind: one of `POSITIONS`.
    """

    kind: str

    @nn.compact
    def __call__(self, tokens: Array, scores: Array | None, where: Array) -> Array:
        """Return `tokens` with positions added.

        Args:
          tokens: `float32 [B, N, D]`.
          scores: `float32 [B, N]`, needed for "rank" only.
          where: `bool [B, N]`.

        Raises:
          ValueError: `kind` is "rank" and no scores are given.
        """
        if self.kind == "none":
            return tokens
        initial = nn.initializers.normal(0.02)
        table = self.param("table", initial, tokens.shape[1:])
        if self.kind == "index":
            return tokens + table[None].astype(tokens.dtype)
        if scores is None:
            raise ValueError("positions 'rank' need the scores: add them where scores are known")
        places = jnp.maximum(ops.ranks(scores, where) - 1, 0)
        return tokens + jnp.take(table, places, axis=0).astype(tokens.dtype)
