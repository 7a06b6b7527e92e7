"""Logits of a whole split as one device program."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax.data import loader
from dnr_jax.metrics.pairs import check_precision
from dnr_jax.types import Array, Batch, Params, Request

ApplyFn = Callable[[Params, Request, Array], Array]


def score_split(apply_fn: ApplyFn, params: Params, batch: Batch, *, batch_size: int) -> Array:
    """Score every request of a split once, in stored order: float32 logits `[R, N]`.

    The last batch is padded with empty requests, whose logits are removed again. It can be vmapped
    over `params` (seeds).

    Args:
      apply_fn: maps `(params, request, scores [B, N])` to logits `[B, N]`. Compiled once per
        function object: pass the same object again, not a new lambda.
      params: parameters of the model.
      batch: the split, as NumPy or device arrays.
      batch_size: requests at a time, >= 1; a number above the split's size means all of it. It
        bounds memory and does not change results, except by float32 rounding for some models.

    Raises:
      ValueError: the split is empty, or `batch_size` is below 1.
      TypeError: the logits have 16 bits.
    """
    rows = _rows(batch, batch_size)
    logits: Array = _scan(apply_fn, loader.take, params, batch, rows)
    return logits.reshape(-1, logits.shape[-1])[: len(batch.scores)]


def compile_split(apply_fn: ApplyFn, params: Params, batch: Batch, *, batch_size: int) -> None:
    """Compile the program of `score_split` for arrays of these shapes, before it is needed."""
    _scan.lower(apply_fn, loader.take, params, batch, _rows(batch, batch_size)).compile()


def score_stream(
    apply_fn: ApplyFn,
    params: Params,
    batch: Batch,
    *,
    batch_size: int,
    batches: int,
    put: Callable[[Batch, np.ndarray], Batch],
) -> np.ndarray:
    """Score a split that stays on the host, `batches` at a time: float32 logits `[R, N]`.

    Args:
      apply_fn: see `score_split`.
      params: parameters of the model.
      batch: the split, NumPy arrays, memory-mapped or not.
      batch_size: requests at a time, >= 1.
      batches: batches that are on the device together, >= 1.
      put: reads rows `int32 [P, B]` of the split and puts them on the device as `[P, B', ...]`,
        B' >= B.

    Raises:
      ValueError: see `score_split`.
    """
    rows = _rows(batch, batch_size)
    work = partial(_scan, apply_fn, loader.pick, params, rows=np.arange(batches))
    found = loader.stream(work, partial(put, batch), loader.parts(rows, batches))
    logits = np.concatenate(found)[:, : rows.shape[1]]
    return logits.reshape(-1, logits.shape[-1])[: len(batch.scores)]


def _rows(batch: Batch, batch_size: int) -> np.ndarray:
    count = batch.scores.shape[0]
    if count == 0:
        raise ValueError("this split holds no requests: nothing to score")
    return loader.order(count, min(batch_size, count))


@partial(jax.jit, static_argnums=(0, 1))
def _scan(
    apply_fn: ApplyFn,
    take: Callable[[Batch, Array], Batch],
    params: Params,
    batch: Batch,
    rows: Array | np.ndarray,
) -> Array:
    def step(carry: None, taken: Any) -> tuple[None, Array]:
        part = take(batch, taken)
        logits = apply_fn(params, part.request, part.scores)
        check_precision(logits)
        return carry, logits.astype(jnp.float32)

    logits: Array = jax.lax.scan(step, None, rows)[1]
    return logits
