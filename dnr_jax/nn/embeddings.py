"""Feature columns -> vectors: all vocabularies in one table, numbers by a linear map."""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dnr_jax.nn import tables
from dnr_jax.types import Array, FeatureSpec, Request


class Embedded(NamedTuple):
    """The summed column embeddings of a request; a part without columns is all zeros.

    Attributes:
      user: `float32 [B, D]`, with the numbers of user and context.
      context: `float32 [B, D]`.
      items: `float32 [B, N, D]`, candidates.
      history_items: `float32 [B, T, D]`, the history columns that candidates also have.
      history_events: `float32 [B, T, D]`, the other history columns (feedback, hour).
    """

    user: Array
    context: Array
    items: Array
    history_items: Array
    history_events: Array


class FeatureEmbedding(nn.Module):
    """Embed every column of a request: `e = sum_c E_c[id_c]`, with `E_c[0] = 0`.

    The tables E_c are stacked in one parameter (see `row_offsets`), so that each part of the
    request is one gather: with one parameter per vocabulary, compiling the gathers, scatters and
    updates of about twenty tables took longer than training. Columns of the same name share their
    rows in all parts. An id outside its vocabulary gives NaN, so the error shows and never reads a
    neighbouring table. Numbers f add `W f`; W is a separate parameter, if there are numbers.

    Attributes:
      spec: column names and vocabulary sizes.
      width: D.
    """

    spec: FeatureSpec
    width: int

    @nn.compact
    def __call__(self, request: Request) -> Embedded:
        """Return the parts of `request`, each summed over its columns."""
        initial = nn.initializers.normal(self.width**-0.5)
        shape = (table_rows(self.spec), self.width)
        table = tables.parameter(self, "table", initial, shape)
        user, context, *lists = (
            self._read(table, names, ids) for names, ids in _columns(self.spec, request)
        )
        items, *events = lists
        user = self._add("numbers", self.spec.numbers, request.numbers, user[:, 0])
        items = self._add("item_numbers", self.spec.item_numbers, request.item_numbers, items)
        return Embedded(user, context[:, 0], items, *events)

    def _add(self, kind: str, names: tuple[str, ...], numbers: Array | None, part: Array) -> Array:
        """Add the linear map of `numbers` `[..., columns]` to `part` `[..., D]`."""
        if not names:
            return part
        if numbers is None:
            raise ValueError(
                f"the request has no {kind}, but the model needs {len(names)} columns of them"
            )
        initial = nn.initializers.normal((len(names) * self.width) ** -0.5)
        return part + numbers @ self.param(kind, initial, (len(names), self.width))

    def _read(self, table: Array | tables.Rows, names: list[str], ids: Array) -> Array:
        """Sum the rows of `ids` `[B, L, columns]` over the columns: `float32 [B, L, D]`."""
        sizes = np.array([[[self.spec.sizes[name] for name in names]]], np.int32)
        known = (ids >= 0) & (ids < sizes)
        weights = jnp.where(known, jnp.sign(ids).astype(jnp.float32), jnp.nan)  # padding: 0
        rows = tables.read(table, ids + _first_rows(self.spec, names), mode="clip")
        return (rows * weights[..., None]).sum(axis=2)


def row_offsets(spec: FeatureSpec) -> dict[str, int]:
    """Return each vocabulary's first row in the table of `FeatureEmbedding`, ordered by name."""
    sizes = _sizes(spec)
    return dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))


def table_rows(spec: FeatureSpec) -> int:
    """Count the rows of the table of `FeatureEmbedding`."""
    return sum(_sizes(spec).values())


def rows_read(spec: FeatureSpec, request: Request) -> Array:
    """List all rows that `FeatureEmbedding` reads for `request`, repeats included: `int32 [R]`.

    They include the padding row of every vocabulary, which models read for masked entries.
    """
    parts = [ids + _first_rows(spec, names) for names, ids in _columns(spec, request)]
    padding = jnp.array(list(row_offsets(spec).values()), jnp.int32)
    return jnp.concatenate([part.reshape(-1) for part in parts] + [padding])


def _first_rows(spec: FeatureSpec, names: list[str]) -> np.ndarray:
    offsets = row_offsets(spec)
    return np.array([[[offsets[name] for name in names]]], np.int32)


def _sizes(spec: FeatureSpec) -> dict[str, int]:
    names = {*spec.user, *spec.context, *spec.history, *spec.item}
    return {name: spec.sizes[name] for name in sorted(names)}


def _columns(spec: FeatureSpec, request: Request) -> list[tuple[list[str], Array]]:
    """List column names and ids `[B, L, columns]` of every field of `Embedded`, in order."""
    shared = [i for i, name in enumerate(spec.history) if name in spec.item]
    own = [i for i, name in enumerate(spec.history) if name not in spec.item]
    return [
        (list(spec.user), request.user[:, None]),
        (list(spec.context), request.context[:, None]),
        (list(spec.item), request.candidates),
        *(([spec.history[i] for i in part], request.history[:, :, part]) for part in (shared, own)),
    ]
