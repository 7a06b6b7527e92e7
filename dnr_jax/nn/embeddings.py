"""Categorical columns -> vectors: one table per vocabulary, read once per batch."""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.types import Array, FeatureSpec, Request

PADDING_ID = 0


class Embedded(NamedTuple):
    """The summed column embeddings of a request; a part without columns is all zeros.

    Attributes:
      user: `float32 [B, D]`.
      context: `float32 [B, D]`.
      items: `float32 [B, N, D]`, candidates.
      history_items: `float32 [B, T, D]`, the history columns that candidates have as well.
      history_events: `float32 [B, T, D]`, the other history columns (feedback, hour).
    """

    user: Array
    context: Array
    items: Array
    history_items: Array
    history_events: Array


class FeatureEmbedding(nn.Module):
    """Embed every column of a request: `e = sum_c E_c[id_c]`, with `E_c[0] = 0`.

    Columns of one name read one table, wherever they stand, in a single gather (and a single
    scatter in the backward pass). An id outside its vocabulary gives NaN, so that it is seen.

    Attributes:
      spec: column names and vocabulary sizes.
      width: D.
    """

    spec: FeatureSpec
    width: int

    @nn.compact
    def __call__(self, request: Request) -> Embedded:
        """Return the parts of `request`, each summed over its columns."""
        columns = _columns(self.spec, request)
        parts = {part: jnp.zeros((*shape, self.width)) for part, shape in _shapes(request).items()}
        for name in sorted({name for _, name, _ in columns}):
            same = [(part, ids) for part, column, ids in columns if column == name]
            for part, rows in self._read(name, same):
                parts[part] = parts[part] + rows.reshape(parts[part].shape)
        return Embedded(**parts)

    def _read(self, name: str, columns: list[tuple[str, Array]]) -> list[tuple[str, Array]]:
        """Gather the rows of all columns that share the table `name`."""
        shape = (self.spec.sizes[name], self.width)
        initial = nn.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)
        table = self.param(f"table_{name}", initial, shape)
        ids = jnp.concatenate([ids for _, ids in columns], axis=1)
        rows = jnp.where((ids != PADDING_ID)[..., None], jnp.take(table, ids, axis=0), 0.0)
        ends = list(accumulate(ids.shape[1] for _, ids in columns))
        pieces = jnp.split(rows, ends[:-1], axis=1)
        return [(part, piece) for (part, _), piece in zip(columns, pieces, strict=True)]


def _shapes(request: Request) -> dict[str, tuple[int, ...]]:
    batch, candidates = request.where.shape
    events = (batch, request.history_where.shape[1])
    return {
        "user": (batch,),
        "context": (batch,),
        "items": (batch, candidates),
        "history_items": events,
        "history_events": events,
    }


def _columns(spec: FeatureSpec, request: Request) -> list[tuple[str, str, Array]]:
    """List `(part, column name, ids [B, L])` of every column."""
    columns = [("user", n, request.user[:, i, None]) for i, n in enumerate(spec.user)]
    columns += [("context", n, request.context[:, i, None]) for i, n in enumerate(spec.context)]
    columns += [("items", n, request.candidates[:, :, i]) for i, n in enumerate(spec.item)]
    for i, name in enumerate(spec.history):
        part = "history_items" if name in spec.item else "history_events"
        columns.append((part, name, request.history[:, :, i]))
    return columns
