"""Batches as row numbers of a split; order is a pure function of (seed, epoch), no row is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax.types import Array, Batch

PADDING_ROW = -1


def order(count: int, batch_size: int, *, seed: int = 0, epoch: int | None = None) -> np.ndarray:
    """Arrange the rows of a split into batches.

    Args:
      count: number of requests, >= 1.
      batch_size: requests per batch, from 1 to `count`.
      seed: seed of the shuffle, together with `epoch`.
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
    0 and a slate of -1, so it never counts.
    """
    taken = jax.tree.map(lambda a: jnp.asarray(a)[jnp.maximum(rows, 0)], batch)
    return _blank(taken, rows != PADDING_ROW, jnp.where)


def read(batch: Batch, rows: np.ndarray) -> Batch:
    """Gather rows `int32 [..., B]` of a split of NumPy arrays, memory-mapped or not, on the host.

    The content equals `take` of each batch; the arrays `[..., B, ...]` are copies.
    """
    taken: Batch = jax.tree.map(lambda a: np.take(a, np.maximum(rows, 0), axis=0), batch)
    real = rows != PADDING_ROW
    return taken if real.all() else _blank(taken, real, np.where)


def pick(batches: Batch, number: Array) -> Batch:
    """Return batch `number` (int32 scalar) of device arrays `[P, B, ...]`, as read by `read`."""
    picked: Batch = jax.tree.map(lambda a: a[number], batches)
    return picked


def parts(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut batches `int32 [P, B]` into parts of `size` batches, the last filled up with padding."""
    missing = -len(rows) % size
    filled = np.pad(rows, [(0, missing), (0, 0)], constant_values=PADDING_ROW)
    return list(filled.reshape(-1, size, rows.shape[1]))


def stream(
    work: Callable[[Batch], Any],
    put: Callable[[np.ndarray], Batch],
    parts: Iterable[np.ndarray],
) -> list[Any]:
    """Run `work` on the parts of host data in turn; read the next while the device is busy.

    Args:
      work: starts a program on a part and returns its results without waiting for them.
      put: reads the rows `int32 [P, B]` of a part on the host and puts them on the device, which
        holds at most two parts at any time.
      parts: the rows of each part.

    Returns:
      The results of each part, as NumPy arrays.
    """
    found: list[Any] = []
    for rows in parts:
        result = work(put(rows))
        found[-1:] = jax.device_get(found[-1:])  # waits for the previous part
        found.append(result)
    return list(jax.device_get(found))


def _blank(batch: Any, real: Any, choose: Callable[..., Any]) -> Batch:
    """Empty the requests that are not `real`; `choose` is the `where` of the arrays' library."""

    def keep(array: Any, empty: float | bool | int) -> Any:
        return choose(real.reshape(*real.shape, *[1] * (array.ndim - real.ndim)), array, empty)

    request = batch.request.replace(
        where=keep(batch.request.where, False),
        history_where=keep(batch.request.history_where, False),
    )
    return Batch(
        request=request,
        scores=keep(batch.scores, 0.0),
        labels=keep(batch.labels, 0.0),
        exposed=keep(batch.exposed, False),
        slate=keep(batch.slate, -1),
        weights=keep(batch.weights, 0.0),
    )
