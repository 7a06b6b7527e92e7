"""Ranking metrics of one list, as expectations over random orders of tied logits.

Every function maps `Pairs` (and a cut-off `k`) to `(value [B] float32, valid [B] bool)`. A request
without a positive is not valid and has value 0: it is left out of means and counted separately.
Gain is binary (label above `pairs.POSITIVE_ABOVE`), the discount of rank r is 1 / log2(r + 1).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from dnr_jax.metrics.pairs import Pairs
from dnr_jax.types import Array

Result = tuple[Array, Array]


def cumulative_discount(length: int, k: int) -> np.ndarray:
    """Sum the discounts of the first r ranks, cut at `k`: `float32 [length + 1]` for r = 0 .. ."""
    ranks = np.arange(1, length + 1)
    discount = np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0)
    return np.concatenate([[0.0], np.cumsum(discount)]).astype(np.float32)


def _cumulative_harmonic(k: int) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, k + 1))]).astype(np.float32)


def _lookup(table: np.ndarray, count: Array) -> Array:
    return jnp.asarray(table)[count.astype(jnp.int32)]


def _result(value: Array, valid: Array) -> Result:
    return jnp.where(valid, value, 0.0), valid


def _hits(pairs: Pairs, k: int) -> Array:
    """Expected positives among the first k ranks, `[B]`."""
    slots = jnp.minimum(pairs.above + pairs.tied, k) - jnp.minimum(pairs.above, k)
    return jnp.sum(pairs.positive * slots / pairs.tied, axis=-1)


def precision(pairs: Pairs, k: int) -> Result:
    """H@k, the share of positives in the top k: hits / k, also for lists shorter than k."""
    return _result(_hits(pairs, k) / k, pairs.positives > 0)


def recall(pairs: Pairs, k: int) -> Result:
    """Recall@k: hits / positives of the list."""
    return _result(_hits(pairs, k) / jnp.maximum(pairs.positives, 1), pairs.positives > 0)


def f1(pairs: Pairs, k: int) -> Result:
    """F1@k of a request, 2 P R / (P + R) = 2 hits / (k + positives), linear in the hits."""
    return _result(2 * _hits(pairs, k) / (k + pairs.positives), pairs.positives > 0)


def any_hit(pairs: Pairs, k: int) -> Result:
    """Probability of at least one positive in the top k.

    A group of n tied candidates with p positives fills m of the k slots. It misses with the
    hypergeometric probability prod_{j<m} (n - p - j) / (n - j). At most one group is cut by k, and
    those above it miss with probability 0 or 1. So the list's probability is that of the group
    which is least likely to miss.
    """
    slots = jnp.minimum(pairs.above + pairs.tied, k) - jnp.minimum(pairs.above, k)
    miss = (pairs.positives_above == 0).astype(jnp.float32)
    for j in range(k):
        others = jnp.maximum(pairs.tied - pairs.positives_tied - j, 0.0)
        miss *= jnp.where(j < slots, others / jnp.maximum(pairs.tied - j, 1.0), 1.0)
    reached = (pairs.where > 0) & (slots > 0)
    return _result(1 - jnp.min(jnp.where(reached, miss, 1.0), axis=-1), pairs.positives > 0)


def ndcg(pairs: Pairs, k: int) -> Result:
    """N@k = DCG@k / ideal DCG@k (Järvelin and Kekäläinen 2002), ideal from the list's positives."""
    table = cumulative_discount(pairs.where.shape[-1], k)
    last = jnp.minimum(pairs.above + pairs.tied, pairs.where.shape[-1])
    discount = (_lookup(table, last) - _lookup(table, pairs.above)) / pairs.tied
    ideal = _lookup(table, pairs.positives)
    dcg = jnp.sum(pairs.positive * discount, axis=-1)
    return _result(dcg / jnp.where(ideal > 0, ideal, 1.0), pairs.positives > 0)


def _precision_sum(pairs: Pairs, k: int) -> Array:
    """Expected sum over the hits in the top k of the precision at their ranks, `[B]`.

    Take a positive in a group of n ties with p positives, with t candidates and c positives above
    the group. If it has rank r, the expected number of positives down to it is
    c + 1 + (p - 1)(r - t - 1) / (n - 1). With A = sum of 1 / r over the m ranks
    r = t+1 .. min(t + n, k) its share is
    [(c + 1) A + (p - 1) / (n - 1) (m - (t + 1) A)] / n.
    """
    first, last = jnp.minimum(pairs.above, k), jnp.minimum(pairs.above + pairs.tied, k)
    table = _cumulative_harmonic(k)
    inverse_ranks = _lookup(table, last) - _lookup(table, first)
    rate = (pairs.positives_tied - 1) / jnp.maximum(pairs.tied - 1, 1)
    share = (pairs.positives_above + 1) * inverse_ranks
    share += rate * (last - first - (pairs.above + 1) * inverse_ranks)
    return jnp.sum(pairs.positive * share / pairs.tied, axis=-1)


def average_precision(pairs: Pairs, k: int) -> Result:
    """M@k: sum of the precisions at the hits of the top k, over min(k, positives)."""
    divisor = jnp.clip(pairs.positives, 1, k)
    return _result(_precision_sum(pairs, k) / divisor, pairs.positives > 0)


def average_precision_total(pairs: Pairs, k: int) -> Result:
    """MAP@k with the other usual divisor, all positives of the list (also those beyond k)."""
    divisor = jnp.maximum(pairs.positives, 1)
    return _result(_precision_sum(pairs, k) / divisor, pairs.positives > 0)


def auc(pairs: Pairs) -> Result:
    """Share of (positive, negative) pairs of the request in the right order, ties one half.

    Not valid without a positive or without a negative.
    """
    negatives = pairs.candidates - pairs.positives
    wrong = pairs.above - pairs.positives_above
    wrong += (pairs.tied - pairs.positives_tied) / 2
    count = pairs.positives * negatives
    share = 1 - jnp.sum(pairs.positive * wrong, axis=-1) / jnp.maximum(count, 1)
    return _result(share, count > 0)
