"""Refuse sizes that cannot work with the data, before anything of them is allocated."""

from __future__ import annotations

import os

import jax

from dnr_jax.data.store import Prepared
from dnr_jax.experiment.plan import Plan
from dnr_jax.experiment.rows import Row
from dnr_jax.training.parts import part_size

FLOAT_BYTES = 4
# Of each parameter there are its value, both of Adam's moments and its best value so far.
COPIES = 4
GIB = 2**30


def check(plan: Plan, prepared: Prepared, memory: int | None = None) -> None:
    """Check the batch and the memory of every row that is trained.

    Args:
      plan: the table.
      prepared: its data.
      memory: bytes that a device has; None = those of the first device, where they are known.

    Raises:
      ValueError: a batch is larger than the training split, or what a row needs in any case is
        more than the memory.
    """
    memory = memory or _memory()
    requests = len(prepared.splits["train"].request_id)
    for row in plan.rows:
        if row.trains and row.train.batch_size > requests:
            raise ValueError(
                f"config.train.batch_size is {row.train.batch_size}, but the training split has "
                f"only {requests} requests: choose at most {requests}"
            )
        if row.trains and memory is not None:
            _check_memory(row, plan, prepared, memory)


def _memory() -> int | None:
    """Return the bytes of the first device's memory; None where that is not known."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        limit: int | None = (device.memory_stats() or {}).get("bytes_limit")
        return limit
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _check_memory(row: Row, plan: Plan, prepared: Prepared, memory: int) -> None:
    """Refuse a row whose largest parts alone do not fit."""
    parts = {
        "the data (set config.train.stream)": 0 if row.train.stream else _data(prepared),
        "embedding tables (config.reranker.width)": _tables(row, plan, prepared),
        "states of candidates and history (config.candidates.size, config.data.history, "
        "config.reranker.width, config.train.micro_batch)": _states(row, prepared),
    }
    if sum(parts.values()) <= memory:
        return
    needs = ", ".join(f"{size / GIB:.2f} GiB for {name}" for name, size in parts.items() if size)
    raise ValueError(
        f"row {row.key!r} does not fit a device of {memory / GIB:.2f} GiB: it takes at least "
        f"{needs}; choose smaller sizes"
    )


def _data(prepared: Prepared) -> int:
    """Count the bytes of the splits that live on the device."""
    batches = [prepared.splits[name].batch for name in ("train", "valid")]
    return sum(leaf.nbytes for leaf in jax.tree.leaves(batches))


def _tables(row: Row, plan: Plan, prepared: Prepared) -> int:
    """Count the bytes of the embedding tables, of all trials and while they are trained."""
    trials = len(row.seeds) * len(row.train.learning_rate_factors)
    whole = sum(prepared.spec.sizes.values()) * _width(row) * FLOAT_BYTES * COPIES * trials
    return whole // (jax.device_count() if plan.devices.shard_tables else 1)


def _states(row: Row, prepared: Prepared) -> int:
    """Count the bytes of one state for each candidate and event of the requests held at once."""
    request = prepared.splits["train"].batch.request
    tokens = request.candidates.shape[1] + request.history.shape[1]
    held = row.train.micro_batch or part_size(row.train.batch_size)
    return held // jax.device_count() * tokens * _width(row) * FLOAT_BYTES


def _width(row: Row) -> int:
    return getattr(row.reranker.settings, "width", 0)
