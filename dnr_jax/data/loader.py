"""Batches as rows of a split: the order is a pure function of (seed, epoch), nothing is dropped."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax.types import Array, Batch

PADDING_ROW = -1


def order(count: int, batch_size: int, *, seed: int = 0, epoch: int | None = None) -> np.ndarray:
    """Arrange the rows of a split into batches.

    Args:
      count: number of requests, >= 1.
      batch_size: requests a batch, from 1 to `count`.
      seed: what the shuffle depends on, with `epoch`.
      epoch: number of the epoch; None keeps the stored order (evaluation).

    Returns:
      `int32 [steps, batch_size]` row numbers; the last batch is filled up with `PADDING_ROW`.

    Raises:
      ValueError: `batch_size` is below 1 or above `count`.
    """
    if not 1 <= batch_size <= count:
        raise ValueError(
            f"batch size {batch_size} does not fit a split of {count} requests: choose 1 to {count}"
        )
    rows = np.arange(count, dtype=np.int32)
    if epoch is not None:
        rows = np.random.default_rng([seed, epoch]).permutation(rows)
    padding = np.full(-count % batch_size, PADDING_ROW, np.int32)
    return np.concatenate([rows, padding]).reshape(-1, batch_size)


def take(batch: Batch, rows: Array) -> Batch:
    """Gather rows `int32 [B]` of a device-resident split; `PADDING_ROW` becomes an empty request.

    An empty request has `where`, `history_where` and `exposed` False, weights, labels and scores
    0 and a slate of -1, so that it counts for nothing anywhere.
    """
    real = rows != PADDING_ROW
    taken = jax.tree.map(lambda a: jnp.asarray(a)[jnp.maximum(rows, 0)], batch)

    def keep(array: Array, empty: float | bool | int) -> Array:
        return jnp.where(real.reshape(-1, *[1] * (array.ndim - 1)), array, empty)

    request = taken.request.replace(
        where=keep(taken.request.where, False),
        history_where=keep(taken.request.history_where, False),
    )
    return Batch(
        request=request,
        scores=keep(taken.scores, 0.0),
        labels=keep(taken.labels, 0.0),
        exposed=keep(taken.exposed, False),
        slate=keep(taken.slate, -1),
        weights=keep(taken.weights, 0.0),
    )
