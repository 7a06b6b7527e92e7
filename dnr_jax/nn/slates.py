"""Ordered lists from a candidate set: sampling, likelihood, selection, and how they are scored.

A list is `int32 [..., K]`, indices into the N candidates in display order; -1 = no item, only at
the end of a list that ran out of candidates (a logged slate may have holes elsewhere).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.types import Array


def take_items(values: Array, lists: Array) -> Array:
    """Gather the candidates of lists.

    Args:
      values: `[B, N, ...]`.
      lists: `int32 [B, ..., K]`.

    Returns:
      `[B, ..., K, ...]`; the first candidate's values where there is no item.
    """
    taken: Array = jax.vmap(lambda row, chosen: row[jnp.maximum(chosen, 0)])(values, lists)
    return taken


def score_list(lists: Array, logits: Array, where: Array) -> Array:
    """Score candidates so that sorting puts the list first, then the others by their logits.

    Position k of K gets K - k + 1 > 0, every other real candidate minus the number of those with a
    larger logit: a function of their order alone, as the offset and scale of g may be arbitrary.

    Args:
      lists: `int32 [B, K]`.
      logits: g, `float32 [B, N]`.
      where: `bool [B, N]`.

    Returns:
      `float32 [B, N]`, `ops.MASKED_LOGIT` where `where` is False.
    """
    size = lists.shape[-1]
    heights = size - jnp.arange(size, dtype=jnp.float32)
    chosen = jax.nn.one_hot(lists, logits.shape[-1], dtype=bool)  # [B, K, N]; -1 matches none
    listed = (chosen * heights[None, :, None]).max(axis=-2)
    # All pairs, as a sorted search does not export with an open number of candidates.
    real = jnp.where(where, logits, -jnp.inf)
    larger = (real[:, None, :] > logits[:, :, None]).sum(axis=-1).astype(jnp.float32)
    return ops.mask_logits(jnp.where(listed > 0, listed, -larger), where)


def top_list(logits: Array, where: Array, size: int) -> Array:
    """Return the best `size` real candidates in order, `int32 [..., size]`, ties by position."""
    size_here = min(size, logits.shape[-1])
    best, chosen = jax.lax.top_k(jnp.where(where, logits, -jnp.inf), size_here)
    lists = jnp.where(jnp.isfinite(best), chosen, -1).astype(jnp.int32)
    padding = [(0, 0)] * (lists.ndim - 1) + [(0, size - size_here)]
    return jnp.pad(lists, padding, constant_values=-1)


def sample_lists(keys: Array, logits: Array, where: Array, *, size: int, count: int) -> Array:
    """Draw Plackett-Luce lists without repeats by Gumbel top-k: `int32 [B, count, size]`.

    Args:
      keys: typed keys `[B]`, one per request.
      logits: `float32 [B, N]`.
      where: `bool [B, N]`.
      size: K.
      count: lists per request.
    """

    def draw(key: Array, row: Array, real: Array) -> Array:
        noise = jax.random.gumbel(key, (count, row.shape[-1]))
        return top_list(row[None] + noise, jnp.broadcast_to(real, noise.shape), size)

    return jax.vmap(draw)(keys, jax.lax.stop_gradient(logits), where)


def keep_best(lists: Array, values: Array) -> Array:
    """Choose from lists `[B, L, K]` the first one of highest value `[B, L]`: `[B, K]`."""
    return take_items(lists, values.argmax(axis=-1)[:, None])[:, 0]


def list_log_probability(logits: Array, where: Array, lists: Array) -> Array:
    """Compute log pi(l) = sum_k log softmax(s)_{l_k} over the candidates not yet chosen.

    Args:
      logits: s, `float32 [B, N]`, the same at every place.
      where: `bool [B, N]`.
      lists: `int32 [B, L, K]`; an empty place contributes 0.

    Returns:
      `float32 [B, L]`.
    """
    return places_log_probability(logits[:, None], where, lists)


def places_log_probability(logits: Array, where: Array, lists: Array) -> Array:
    """Compute log pi(l) = sum_k log softmax(s_k)_{l_k}, with separate logits s_k for each place k.

    Args:
      logits: s, `float32 [B, K, N]`, or `[B, 1, N]` for the same at every place.
      where: `bool [B, N]`.
      lists: `int32 [B, L, K]`; an empty place contributes 0.

    Returns:
      `float32 [B, L]`.
    """
    left = where[:, None, None, :] & ~chosen_before(lists, where.shape[-1])
    log_probabilities = ops.masked_log_softmax(jnp.broadcast_to(logits[:, None], left.shape), left)
    picked = jnp.take_along_axis(log_probabilities, jnp.maximum(lists, 0)[..., None], axis=-1)
    return jnp.where(lists >= 0, picked[..., 0], 0.0).sum(axis=-1)


def chosen_before(lists: Array, candidates: int) -> Array:
    """Mark the candidates that come earlier in the list: `bool [..., K, N]` for `[..., K]`."""
    chosen = jax.nn.one_hot(lists, candidates, dtype=jnp.int32)
    return (jnp.cumsum(chosen, axis=-2) - chosen) > 0
