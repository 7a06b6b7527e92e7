"""Metrics of a whole split that are not a mean over requests; NumPy, float64."""

from __future__ import annotations

import numpy as np

from dnr_jax.metrics.pairs import POSITIVE_ABOVE
from dnr_jax.metrics.ranking import cumulative_discount


def f1_of_means(precision: float, recall: float) -> float:
    """F1 of the split's mean precision and mean recall (not the mean of F1); 0 if both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def auc_micro(logits: np.ndarray, labels: np.ndarray, where: np.ndarray) -> float:
    """AUC over all (positive, negative) pairs of the split, across requests; ties one half.

    Exact, by the rank sum of Mann and Whitney (1947); NaN without a positive or a negative.

    Args:
      logits: `[R, N]`.
      labels: `[R, N]` in [0, 1].
      where: `bool [R, N]`, True = counts.
    """
    values = np.asarray(logits)[where]
    positive = np.asarray(labels)[where] > POSITIVE_ABOVE
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if positives == 0 or negatives == 0:
        return float("nan")
    ordered = np.sort(values[~positive])
    hits = values[positive]
    below = np.searchsorted(ordered, hits, "left").sum(dtype=np.float64)
    not_above = np.searchsorted(ordered, hits, "right").sum(dtype=np.float64)
    return float((below + not_above) / 2 / positives / negatives)


def ndcg_end_to_end(
    ndcg: np.ndarray, pool_positives: np.ndarray, positives: np.ndarray, *, k: int
) -> np.ndarray:
    """Rescale N@k to the ideal over all positives of a request, also those outside its pool.

    Args:
      ndcg: `[R]`, N@k with the ideal of the pool; ignored where the pool has no positive.
      pool_positives: `[R]`, judged positives in the pool.
      positives: `[R]`, all positives of the request; at least `pool_positives` is assumed.
      k: cut-off.

    Returns:
      float64 `[R]`: 0 if all positives lie outside the pool, NaN if the request has none.
    """
    table = cumulative_discount(k, k).astype(np.float64)
    found = table[np.minimum(pool_positives, k).astype(int)]
    ideal = table[np.clip(np.maximum(positives, pool_positives), 0, k).astype(int)]
    gained = np.where(found > 0, np.nan_to_num(np.asarray(ndcg, np.float64)) * found, 0.0)
    return np.where(ideal > 0, gained / np.where(ideal > 0, ideal, 1.0), np.nan)
