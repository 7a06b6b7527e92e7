"""All metrics of one model on one split."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax import metrics, ops
from dnr_jax.data.store import Split
from dnr_jax.metrics import beyond, calibration, pairs, pooled
from dnr_jax.types import Array

# Requests at a time: it bounds device memory, and one compiled program serves every split.
CHUNK = 2048


class Evaluation(NamedTuple):
    """Results of one model on one split.

    Attributes:
      metrics: Python floats by metric name; NaN where nothing could be measured.
      per_request: `float32 [R]` by metric name, NaN where the request does not count.
      requests: requests of the split, including excluded ones.
      excluded: requests without a judged positive in the pool. The only ranking metric in which
        they count is `n@k_end_to_end` (they score 0 if they have a positive outside the pool).
    """

    metrics: dict[str, float]
    per_request: dict[str, np.ndarray]
    requests: int
    excluded: int


def mean_ndcg(logits: Array, labels: Array, where: Array, k: int) -> Array:
    """Mean N@k over requests with a positive, a float32 scalar (0 if there is none); jittable.

    Args:
      logits: `[R, N]`.
      labels: `[R, N]` in [0, 1].
      where: `bool [R, N]`, judged candidates.
      k: cut-off, static.
    """
    value, valid = metrics.build("n", k=k)(logits, labels, where)
    return ops.weighted_mean(value, valid)


def ndcg_sums(logits: Array, labels: Array, where: Array, k: int) -> tuple[Array, Array]:
    """Return numerator and denominator of `mean_ndcg`, which can be summed over batches."""
    value, valid = metrics.build("n", k=k)(logits, labels, where)
    return ops.weighted_sum(value, valid)


def evaluate(
    logits: np.ndarray | Array,
    split: Split,
    *,
    k: int,
    item_vectors: np.ndarray,
    item_popularity: np.ndarray,
) -> Evaluation:
    """Evaluate logits `[R, N]` on a split.

    Accuracy and calibration use judged candidates (`where` and weight > 0). The shown lists, and so
    diversity, coverage, long tail and popularity, use all real candidates. Correlation with the
    truth uses the real candidates whose truth is known; if there are none its keys are absent.

    Args:
      logits: `[R, N]`, finite on real candidates, of at least 32 bits; ranked in float32.
      split: R requests with N candidates each.
      k: length of the shown list, at most N.
      item_vectors: `float32 [V, d]`; d = 0 means unknown and gives NaN diversity.
      item_popularity: `float32 [V]`, training interactions.

    Raises:
      ValueError: shapes disagree, there is no request, a real candidate's logit is not finite, k
        is not in 1 .. N, or an item id has no vector or popularity.
      TypeError: the logits have 16 bits.
    """
    pairs.check_precision(logits)
    logits = np.asarray(logits, np.float32)
    where = np.asarray(split.batch.request.where)
    items = np.asarray(split.batch.request.candidates)[..., 0]
    _check(logits, where, k)
    _check_items(items, item_vectors, item_popularity)
    labels, judged = np.asarray(split.batch.labels), where & (np.asarray(split.batch.weights) > 0)
    per_request = per_request_metrics(logits, labels, judged, k=k)
    pool_positives = (judged & (labels > metrics.POSITIVE_ABOVE)).sum(axis=1)
    per_request[f"n@{k}_end_to_end"] = pooled.ndcg_end_to_end(
        per_request[f"n@{k}"], pool_positives, np.asarray(split.positives), k=k
    ).astype(np.float32)
    per_request |= _truth_correlation(logits, np.asarray(split.truth), where)
    shown, diversity = _shown(logits, items, where, item_vectors, k=k)
    per_request[f"diversity@{k}"] = diversity
    flat = {name: _mean(values) for name, values in per_request.items()}
    flat[f"f1_of_means@{k}"] = pooled.f1_of_means(flat[f"h@{k}"], flat[f"recall@{k}"])
    flat["auc_micro"] = pooled.auc_micro(logits, labels, judged)
    flat |= _shown_metrics(shown, np.asarray(item_popularity), k)
    flat |= _calibration(logits, labels, judged)
    return Evaluation(flat, per_request, len(logits), int((pool_positives == 0).sum()))


def per_request_metrics(
    logits: np.ndarray, labels: np.ndarray, where: np.ndarray, *, k: int
) -> dict[str, np.ndarray]:
    """Compute `metrics.evaluate_batch` over any number of requests: float32 `[R]`, NaN = invalid.

    Args:
      logits: `[R, N]`.
      labels: `[R, N]` in [0, 1].
      where: `bool [R, N]`, True = counts.
      k: cut-off, >= 1.
    """
    parts = [_batch_metrics(*chunk, k=k) for chunk in _chunks(logits, labels, where)]
    names = metrics.names(k)
    return {name: _with_nan([part[name] for part in parts])[: len(logits)] for name in names}


_batch_metrics = partial(jax.jit, static_argnames="k")(metrics.evaluate_batch)
_calibration_sums = jax.jit(calibration.calibration_sums)


@partial(jax.jit, static_argnames="k")
def _list_contents(
    logits: Array, items: Array, where: Array, item_vectors: Array, k: int
) -> tuple[Array, tuple[Array, Array]]:
    shown = beyond.top_items(logits, items, where, k=k)
    return shown, beyond.intra_list_diversity(shown, item_vectors)


@jax.jit
def _correlations(logits: Array, truth: Array, known: Array) -> dict[str, tuple[Array, Array]]:
    # The truth need not be in [0, 1] here: only its order matters.
    return {
        f"{name}_truth": metrics.build(name, k=1)(logits, truth, known)
        for name in ("spearman", "kendall")
    }


def _check(logits: np.ndarray, where: np.ndarray, k: int) -> None:
    if logits.shape != where.shape:
        raise ValueError(
            f"logits have shape {logits.shape}, but the split's candidates have shape "
            f"{where.shape}: score the same split"
        )
    if not len(where):
        raise ValueError("this split holds no requests: nothing to evaluate")
    if not 1 <= k <= where.shape[1]:
        raise ValueError(
            f"cannot show {k} of {where.shape[1]} candidates: choose eval.k from 1 to "
            f"{where.shape[1]} or a larger candidates.size"
        )
    broken = np.flatnonzero((where & ~np.isfinite(logits)).any(axis=1))
    if broken.size:
        raise ValueError(
            f"logits of {broken.size} requests are NaN or infinite, first in request "
            f"{broken[0]}: the model has diverged; restore its last good checkpoint"
        )


def _check_items(items: np.ndarray, item_vectors: np.ndarray, popularity: np.ndarray) -> None:
    known = min(len(item_vectors), len(popularity))
    if items.max(initial=0) >= known:
        raise ValueError(
            f"item id {items.max()} has no vector or popularity: there are {len(item_vectors)} "
            f"vectors and {len(popularity)} counts; pass those of this data set"
        )


def _chunks(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Cut arrays along their first axis into chunks of one size, the last padded with zeros.

    The size is a power of two, so that splits of similar size share their compiled programs.
    """
    count = len(arrays[0])
    size = min(1 << max(count - 1, 0).bit_length(), CHUNK)
    for start in range(0, count, size):
        missing = max(0, start + size - count)
        parts = (np.asarray(array[start : start + size]) for array in arrays)
        yield tuple(np.pad(p, [(0, missing)] + [(0, 0)] * (p.ndim - 1)) for p in parts)


def _with_nan(results: list[tuple[Array, Array]]) -> np.ndarray:
    values = [np.where(np.asarray(valid), np.asarray(value), np.nan) for value, valid in results]
    return np.concatenate(values or [np.zeros(0)]).astype(np.float32)


def _mean(values: np.ndarray) -> float:
    kept = values[~np.isnan(values)]
    return float(kept.mean(dtype=np.float64)) if kept.size else float("nan")


def _truth_correlation(
    logits: np.ndarray, truth: np.ndarray, where: np.ndarray
) -> dict[str, np.ndarray]:
    known = where & np.isfinite(truth)
    if not known.any():
        return {}
    parts = [_correlations(*chunk) for chunk in _chunks(logits, truth, known)]
    return {name: _with_nan([part[name] for part in parts])[: len(logits)] for name in parts[0]}


def _shown(
    logits: np.ndarray, items: np.ndarray, where: np.ndarray, item_vectors: np.ndarray, *, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the shown item ids `[R, k]` and the diversity of each list, `float32 [R]`."""
    vectors = jnp.asarray(item_vectors, jnp.float32)
    parts = [_list_contents(*c, vectors, k=k) for c in _chunks(logits, items, where)]
    shown = np.concatenate([np.asarray(ids) for ids, _ in parts])[: len(logits)]
    diversity = _with_nan([value for _, value in parts])[: len(logits)]
    return shown, diversity if vectors.shape[1] else np.full_like(diversity, np.nan)


def _shown_metrics(shown: np.ndarray, item_popularity: np.ndarray, k: int) -> dict[str, float]:
    return {
        f"coverage@{k}": beyond.coverage(shown, len(item_popularity)),
        f"long_tail@{k}": beyond.long_tail_share(shown, item_popularity),
        f"popularity@{k}": beyond.mean_popularity(shown, item_popularity),
    }


def _calibration(logits: np.ndarray, labels: np.ndarray, judged: np.ndarray) -> dict[str, float]:
    sums = [
        jax.tree.map(lambda a: np.asarray(a, np.float64), _calibration_sums(*chunk))
        for chunk in _chunks(logits, labels, judged)
    ]
    total = jax.tree.map(lambda *parts: np.sum(parts, axis=0), *sums)
    return {
        "ece": calibration.expected_calibration_error(total),
        "brier": calibration.brier(total),
    }
