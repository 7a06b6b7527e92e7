"""Logits of a whole split as one device program."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from dnr_jax.data import loader
from dnr_jax.metrics.pairs import check_precision
from dnr_jax.types import Array, Batch, Params, Request


def score_split(
    apply_fn: Callable[[Params, Request, Array], Array],
    params: Params,
    batch: Batch,
    *,
    batch_size: int,
) -> Array:
    """Score every request of a split once, in stored order: float32 logits `[R, N]`.

    The last batch is filled up with empty requests, whose logits are cut off again. May be
    vmapped over `params` (seeds).

    Args:
      apply_fn: maps `(params, request, scores [B, N])` to logits `[B, N]`. Compiled once per
        function object: pass the same object again, not a new lambda.
      params: of the model.
      batch: the split, arrays of NumPy or of the device.
      batch_size: requests at a time, >= 1; it bounds memory and changes no result, so more than
        the split holds is as good as all of it.

    Raises:
      ValueError: the split is empty, or `batch_size` is below 1.
      TypeError: the logits have 16 bits.
    """
    count = batch.scores.shape[0]
    if count == 0:
        raise ValueError("this split holds no requests: nothing to score")
    rows = loader.order(count, min(batch_size, count))
    return _scan(apply_fn, params, batch, rows)[:count]


@partial(jax.jit, static_argnums=0)
def _scan(apply_fn: Callable, params: Params, batch: Batch, rows: Array) -> Array:
    def step(carry, taken):
        part = loader.take(batch, taken)
        logits = apply_fn(params, part.request, part.scores)
        check_precision(logits)
        return carry, logits.astype(jnp.float32)

    _, logits = jax.lax.scan(step, None, rows)
    return logits.reshape(-1, logits.shape[-1])
