"""How differently two lists order their items."""

from __future__ import annotations

import jax.numpy as jnp

from dnr_jax.types import Array


def disagreement(lists: Array, others: Array) -> Array:
    """Compute delta, the share of item pairs in the union of two lists that they order differently.

    An item outside a list is tied with others outside and ranks below those inside. A pair has one
    of three orders: first above, second above, tied. Delta is 0 for equal lists and for a union of
    one item, and 1 for lists without a common item (unless the union has fewer than two items).

    Args:
      lists: `int32 [B, S, K]`, without repeats; -1 = no item.
      others: `int32 [B, A, K]`, likewise.

    Returns:
      `float32 [B, S, A]` in [0, 1]; exchanging the arguments swaps the last two axes.
    """
    shape = (lists.shape[0], lists.shape[1], others.shape[1], lists.shape[2])
    mine = jnp.broadcast_to(lists[:, :, None], shape)
    yours = jnp.broadcast_to(others[:, None], shape)
    # An item of both lists counts once, as one of mine.
    alone = jnp.where(_heights(yours, mine) > 0, -1, yours)
    union = jnp.concatenate([mine, alone], axis=-1)
    differ = _orders(_heights(union, mine)) != _orders(_heights(union, yours))
    real = union >= 0
    apart = ~jnp.eye(union.shape[-1], dtype=bool)[None, None, None]
    pairs = real[..., :, None] & real[..., None, :] & apart
    return (pairs & differ).sum(axis=(-2, -1)) / jnp.maximum(pairs.sum(axis=(-2, -1)), 1)


def _heights(items: Array, lists: Array) -> Array:
    """Return K for the first item of `lists` `[..., K]`, 1 for the last, 0 for items outside."""
    found = (items[..., :, None] == lists[..., None, :]) & (items[..., :, None] >= 0)
    falling = jnp.arange(lists.shape[-1], 0, -1).reshape((1,) * lists.ndim + (-1,))
    return (found * falling).sum(axis=-1)


def _orders(heights: Array) -> Array:
    return jnp.sign(heights[..., :, None] - heights[..., None, :])
