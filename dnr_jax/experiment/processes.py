"""One run in several processes: all of them compute, only the first writes the run folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")

# A process that is suspended, or compiles on a busy machine, is not dead; a dead one is noticed at
# once, when a collective fails.
HEARTBEAT_SECONDS = 600


def join(coordinator: str, *, processes: int, process: int) -> None:
    """Join the run's other processes; call it before anything else touches a device.

    Args:
      coordinator: `host:port` of the first process, the same in all.
      processes: number of processes, >= 2.
      process: number of this process, 0 to `processes` - 1.

    Raises:
      ValueError: a number is out of range.
    """
    if processes < 2 or not 0 <= process < processes:
        raise ValueError(
            f"--processes={processes} --process={process}: with --coordinator there are at least "
            "2 processes, numbered from 0"
        )
    jax.distributed.initialize(
        coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
    )
    meet("joined")  # the CPU's collectives must connect within 30 s, later waits may be long


def is_first() -> bool:
    """Whether this process writes the run folder; the only one is the first."""
    return jax.process_index() == 0


def meet(place: str) -> None:
    """Wait until all processes have reached this point."""
    multihost_utils.sync_global_devices(place)


def first_then_all(prepare: Callable[[], T]) -> T:
    """Run `prepare` in the first process, then in the others, which find what it left on disk."""
    if is_first():
        result = prepare()
        meet("prepared")
        return result
    meet("prepared")
    return prepare()


def of_first(tree: Any) -> Any:
    """Return the first process's arrays, as NumPy arrays, in every process; keys as they are."""
    if jax.process_count() == 1:
        return tree
    data = jax.tree.map(lambda a: np.asarray(jax.random.key_data(a) if _is_key(a) else a), tree)
    told = multihost_utils.broadcast_one_to_all(data)
    return jax.tree.map(lambda a, t: jax.random.wrap_key_data(t) if _is_key(a) else t, tree, told)


def blank(tree: Any) -> Any:
    """Replace `jax.ShapeDtypeStruct`s by zeros, for a process without a checkpoint."""
    return jax.tree.map(_zeros, tree)


def on_host(tree: Any) -> Any:
    """Gather arrays that are split over processes; all processes must call this together."""

    def gather(array: Any) -> Any:
        near = not isinstance(array, jax.Array) or array.is_fully_addressable
        if near or array.is_fully_replicated:
            return array
        return multihost_utils.process_allgather(array, tiled=True)

    return jax.tree.map(gather, tree)


@contextmanager
def folder(workdir: Path) -> Iterator[Path]:
    """Yield the run folder of this process: `workdir`, or a scratch one in all but the first."""
    if is_first():
        yield workdir
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def _zeros(slot: Any) -> Any:
    if not _is_key(slot):
        return np.zeros(slot.shape, slot.dtype)
    data = jax.eval_shape(jax.random.key_data, slot)
    return jax.random.wrap_key_data(jnp.zeros(data.shape, data.dtype))


def _is_key(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
