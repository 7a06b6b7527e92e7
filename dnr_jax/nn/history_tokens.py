"""Request -> user state, candidates and the history as a list: for models that read every event."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.embeddings import FeatureEmbedding
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import RequestEncoder
from dnr_jax.types import Array, FeatureSpec, Request


class HistoryRequestEncoder(nn.Module):
    """`RequestEncoder` that also returns the events, encoded with the weights of the candidates.

    An event is `e_l + g_l`: e_l as for a candidate, g_l the sum of its other columns, which have
    their own table. With `trunk.matching` e_l also has its match with the history.

    Attributes:
      spec, trunk: see `RequestEncoder`.
    """

    spec: FeatureSpec
    trunk: Trunk

    def __call__(self, request: Request, *, drop: Drop) -> tuple[Array, Array, Array]:
        """Return `(u [B, D], e [B, N, D], events [B, T, D])`."""
        user, items, met, columns = self.parts(request, drop=drop)
        return user, items, met + columns

    @nn.compact
    def parts(self, request: Request, *, drop: Drop) -> tuple[Array, Array, Array, Array]:
        """Return `(u, e, e_l [B, T, D], g_l [B, T, D])`; g_l is 0 if history has no own columns."""
        encoder = RequestEncoder(self.spec, self.trunk, name="encoder")
        user, both = encoder(_with_events(self.spec, request), drop=drop)
        items, met = jnp.split(both, [request.where.shape[1]], axis=1)
        spec, alone = history_alone(self.spec, request)
        if not spec.history:
            return user, items, met, jnp.zeros_like(met)
        columns = FeatureEmbedding(spec, self.trunk.width, name="columns")
        return user, items, met, columns(alone).history_events


def _with_events(spec: FeatureSpec, request: Request) -> Request:
    """Append the events to the candidates: `[B, N + T, Fi]`.

    Columns that the history lacks are padding there, which embeds to 0; numbers are 0.
    """
    blank = jnp.zeros(request.history_where.shape, request.candidates.dtype)
    events = [
        request.history[:, :, spec.history.index(name)] if name in spec.history else blank
        for name in spec.item
    ]
    both = jnp.concatenate([request.candidates, jnp.stack(events, axis=-1)], axis=1)
    numbers = request.item_numbers
    if numbers is not None:
        numbers = jnp.pad(numbers, [(0, 0), (0, blank.shape[1]), (0, 0)])
    return replace(request, candidates=both, item_numbers=numbers)


def history_alone(spec: FeatureSpec, request: Request) -> tuple[FeatureSpec, Request]:
    """Keep only the columns of a spec and its request that occur in the history alone."""
    own = tuple(name for name in spec.history if name not in spec.item)
    alone = replace(
        request,
        user=request.user[:, :0],
        context=request.context[:, :0],
        history=request.history[:, :, [spec.history.index(name) for name in own]],
        candidates=request.candidates[:, :, :0],
    )
    return FeatureSpec(user=(), context=(), history=own, item=(), sizes=spec.sizes), alone
