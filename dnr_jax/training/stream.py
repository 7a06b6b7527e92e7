"""An epoch over data that stays on the host: parts of it go to the device while it trains.

The order is that of `loader.order(seed, epoch)` and the step is the same, as for data on the
device, so the results are the same. A run's position in its data is the triple (seed, epoch, step)
that every checkpoint holds; there is no other state to save.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from dnr_jax.data import loader
from dnr_jax.objectives import Terms
from dnr_jax.training.epoch import Alternation, Epoch
from dnr_jax.training.step import TrainState
from dnr_jax.types import Array, Batch

Put = Callable[[Batch, np.ndarray], Batch]


class Part(NamedTuple):
    """A part of an epoch: updates `[U']` on batches that fit on the device together.

    Attributes:
      updates: which updates of the epoch.
      batches: which batches of the epoch they see.
      picks: `int32 [U']`, which of these each update sees.
    """

    updates: slice
    batches: slice
    picks: np.ndarray


def streamed(epoch: Epoch, updates: Alternation, *, batches: int, put: Put) -> Epoch:
    """Make the epoch program that reads its batches from the host, part by part.

    Every seed has its own order, and so its own batches. See `loader.stream`.

    Args:
      epoch: from `make_epoch` with `take=loader.pick`. It is compiled once for whole parts and
        once for a shorter last one.
      updates: the updates of the epoch.
      batches: batches per part of one seed, >= 1; a part is longer where the players' turns on one
        batch would otherwise fall into two parts.
      put: reads rows `int32 [P, B]` of the data and puts them on the device.

    Returns:
      An epoch whose `data` are host arrays, memory-mapped or not.

    Raises:
      ValueError: `batches` is below 1.
    """
    if batches < 1:
        raise ValueError(f"cannot stream {batches} batches at a time: choose at least 1")
    parts = list(cut(updates, batches))
    first = np.unique(updates.batches, return_index=True)[1]  # an update that sees each batch

    def run(
        states: TrainState, data: Batch, rows: Array | np.ndarray, turns: Array | np.ndarray
    ) -> tuple[TrainState, Terms]:
        seeds, left = len(rows), iter(parts)

        def train(ready: Batch) -> Terms:
            nonlocal states
            part = next(left)
            size = part.batches.stop - part.batches.start
            picks = np.arange(seeds, dtype=np.int32)[:, None] * size + part.picks
            states, terms = epoch(states, ready, picks, turns[part.updates])
            return terms

        order = np.asarray(rows)[:, first]  # [S, batches, B]
        wanted = (np.concatenate(order[:, part.batches]) for part in parts)
        terms = loader.stream(train, partial(put, data), wanted)
        return states, jax.tree.map(lambda *pieces: np.concatenate(pieces, axis=1), *terms)

    return run


def cut(updates: Alternation, batches: int) -> Iterator[Part]:
    """Cut an epoch into parts of at least `batches` batches; the last one may be shorter."""
    highest = np.maximum.accumulate(updates.batches)
    lowest = np.minimum.accumulate(updates.batches[::-1])[::-1]
    start = 0
    # Cut only where no batch is needed on both sides.
    for stop in [*(np.flatnonzero(highest[:-1] < lowest[1:]) + 1), len(updates.batches)]:
        seen = updates.batches[start:stop]
        low, high = int(seen.min()), int(seen.max()) + 1
        if high - low >= batches or stop == len(updates.batches):
            yield Part(slice(start, stop), slice(low, high), (seen - low).astype(np.int32))
            start = stop
