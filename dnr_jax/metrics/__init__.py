"""Metrics of ranked lists: expected values over ties; requests without a positive are left out."""

from __future__ import annotations

from collections.abc import Callable

from dnr_jax.metrics import correlation, ranking
from dnr_jax.metrics.pairs import POSITIVE_ABOVE, Pairs, count_pairs
from dnr_jax.types import Array, Metric

# Metrics of the first k ranks; their full name is "name@k".
AT_K: dict[str, Callable[[Pairs, int], ranking.Result]] = {
    "h": ranking.precision,
    "hit_any": ranking.any_hit,
    "recall": ranking.recall,
    "n": ranking.ndcg,
    "m": ranking.average_precision,
    "map_total": ranking.average_precision_total,
    "f1": ranking.f1,
}
# Metrics of the whole list.
WHOLE: dict[str, Callable[[Pairs], ranking.Result]] = {
    "auc": ranking.auc,
    "spearman": correlation.spearman,
    "kendall": correlation.kendall,
}
METRICS = {**AT_K, **WHOLE}

__all__ = ["AT_K", "METRICS", "POSITIVE_ABOVE", "WHOLE", "build", "evaluate_batch", "names"]


def names(k: int) -> tuple[str, ...]:
    """List the full names of all metrics at cut-off `k`, in the order of `METRICS`."""
    return (*(f"{name}@{k}" for name in AT_K), *WHOLE)


def build(name: str, *, k: int) -> Metric:
    """Make the metric `name`, a key of `METRICS`, as a function of (logits, labels, where).

    Raises:
      ValueError: there is no such metric, or `k` is below 1.
    """
    if name not in METRICS:
        raise ValueError(f"no metric named {name!r}; known: {', '.join(METRICS)}")
    _check_cutoff(k)

    def metric(logits: Array, labels: Array, where: Array) -> tuple[Array, Array]:
        pairs = count_pairs(logits, labels, where)
        return AT_K[name](pairs, k) if name in AT_K else WHOLE[name](pairs)

    return metric


def evaluate_batch(
    logits: Array, labels: Array, where: Array, *, k: int
) -> dict[str, tuple[Array, Array]]:
    """Compute all metrics of a batch from one pass over its pairs; see `types.Metric`.

    Args:
      logits: `[B, N]`; NaN ranks last.
      labels: `[B, N]` in [0, 1].
      where: `bool [B, N]`, True = counts; False for padding and unjudged candidates.
      k: cut-off, >= 1.

    Returns:
      `(value [B], valid [B])` by full name, for all of `names(k)`.
    """
    _check_cutoff(k)
    pairs = count_pairs(logits, labels, where)
    results = {f"{name}@{k}": metric(pairs, k) for name, metric in AT_K.items()}
    return results | {name: metric(pairs) for name, metric in WHOLE.items()}


def _check_cutoff(k: int) -> None:
    if k < 1:
        raise ValueError(f"cut-off k is {k}; it must be at least 1")
