"""Lists from a matching matrix M `[B, N, K]`: the greedy one, and samples."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dnr_jax.rerankers.nar4rec.matching import fill_places
from dnr_jax.types import Array


def greedy_list(matching: Array, where: Array) -> Array:
    """Fill places one by one with the best M_ik that is left: `int32 [B, K]`."""
    return fill_places(matching, jnp.zeros((*where.shape, where.shape[1])), where)


def sample_places(keys: Array, matching: Array, where: Array, *, count: int) -> Array:
    """Draw place k from `softmax M_k` over the candidates left: `int32 [B, count, K]`.

    The greedy list of M plus Gumbel noise, independent for each place, is such a draw. The
    likelihood of the lists is `nn.slates.places_log_probability` of M with K before N.

    Args:
      keys: typed keys `[B]`, one per request.
      matching: M, `float32 [B, N, K]`.
      where: `bool [B, N]`.
      count: lists per request.
    """
    shape = (count, *matching.shape[1:])
    noise = jax.vmap(lambda key: jax.random.gumbel(key, shape))(keys)
    noisy = jax.lax.stop_gradient(matching)[:, None] + noise
    return jax.vmap(greedy_list, (1, None), 1)(noisy, where)
