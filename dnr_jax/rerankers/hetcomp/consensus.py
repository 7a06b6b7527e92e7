"""Learning from several rankings: how much they differ, and losses towards their consensus.

These are the parts of HetComp (Kang et al. 2023, arXiv 2303.01130). `rerankers.hetcomp` describes
the whole method and what is ours.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.types import Array


def importance(logits: Array, where: Array) -> Array:
    """Compute w = 1 / log2(1 + rank) of real candidates, 0 of others: `float32 [..., N]`."""
    ranks = ops.ranks(logits, where)
    return jnp.where(where, 1 / jnp.log2(jnp.maximum(ranks, 1) + 1.0), 0.0)


def discrepancy(mine: Array, theirs: Array) -> Array:
    """Compute `1 - sum w w' / sum w'^2` of two importances `[..., N]`: 0 for the same ranking.

    It is one minus the NDCG of my ranking, with their importance as the gain; in [0, 1].
    """
    ideal = jnp.square(theirs).sum(axis=-1)
    return 1 - (mine * theirs).sum(axis=-1) / jnp.where(ideal > 0, ideal, 1.0)


def move(pointers: Array, distances: Array, *, ratio: float) -> Array:
    """Move the pointers that are due by one, up to the last snapshot.

    A pointer v is due if `d(Q) / d(v + 1)` is above `ratio` or below 1.

    Args:
      pointers: v, `int32 [T, B]` in 0..Q-1, for T teachers.
      distances: d, `float32 [T, Q, B]`, to each of a teacher's Q snapshots.
      ratio: > 0.
    """
    following = jnp.minimum(pointers + 1, distances.shape[1] - 1)
    ahead = jnp.take_along_axis(distances, following[:, None], axis=1)[:, 0]
    last = distances[:, -1]
    return jnp.where((last > ratio * ahead) | (last < ahead), following, pointers)


def coarse_loss(logits: Array, ranks: Array, positive: Array, where: Array) -> Array:
    """Compute the mean over the target of `log(1 + S_else / e^s)`, S_else = sum e^s outside it.

    The target is the set of positives and the better half by `ranks`.

    Args:
      logits: s, `float32 [B, N]`.
      ranks: `int32 [B, N]`, 1 = best.
      positive: `bool [B, N]`, within `where`.
      where: `bool [B, N]`, candidates that count at all.
    """
    target = positive | _better(ranks, where, share=2)
    outside = jax.nn.logsumexp(ops.mask_logits(logits, where & ~target), axis=-1, keepdims=True)
    return ops.weighted_mean(jax.nn.softplus(outside - logits), target)


def fine_loss(logits: Array, ranks: Array, positive: Array, where: Array) -> Array:
    """Compute `list_mle` of the positives, plus half of that of the best half and best tenth.

    The arguments are those of `coarse_loss`.
    """
    likelihood = partial(list_mle, logits, ranks, where=where)
    half, tenth = (likelihood(_better(ranks, where, share=share)) for share in (2, 10))
    return likelihood(positive) + (half + tenth) / 2


def list_mle(logits: Array, ranks: Array, chosen: Array, *, where: Array) -> Array:
    """Compute minus the log-likelihood of drawing the chosen items first, in order, as a mean.

    `-log prod_k e^{s_k} / (sum of e^s over what is not yet drawn)` (Xia et al. 2008, ListMLE).

    Args:
      logits: s, `float32 [B, N]`.
      ranks: `int32 [B, N]`, 1 = drawn first.
      chosen: `bool [B, N]`, within `where`.
      where: `bool [B, N]`, what may be drawn.
    """
    order = jnp.argsort(jnp.where(chosen, ranks, logits.shape[-1] + 1), axis=-1)
    drawn = jnp.take_along_axis(ops.mask_logits(logits, where), order, axis=-1)
    left = jax.lax.cumlogsumexp(drawn, axis=1, reverse=True)
    return ops.weighted_mean(left - drawn, jnp.take_along_axis(chosen, order, axis=-1))


def _better(ranks: Array, where: Array, *, share: int) -> Array:
    """Mark the real candidates among the best 1/`share` of their request, rounded down."""
    return where & (share * ranks <= where.sum(axis=-1, keepdims=True))
