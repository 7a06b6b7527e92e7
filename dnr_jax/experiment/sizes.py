"""Refuse sizes that cannot work with the data, before any memory is allocated."""

from __future__ import annotations

from typing import NamedTuple

import jax

from dnr_jax.data.store import Prepared
from dnr_jax.experiment.plan import Plan
from dnr_jax.experiment.rows import Row
from dnr_jax.io import memory as memory_
from dnr_jax.io.memory import GIB
from dnr_jax.noise import GeneratorSettings
from dnr_jax.training.parts import part_size

FLOAT_BYTES = 4


class Part(NamedTuple):
    """One use of memory by a row.

    Attributes:
      words: what it is.
      bytes: the least memory on one device.
      cures: the two knobs that make it smaller; the first is to be tried first.
    """

    words: str
    bytes: int
    cures: tuple[str, str]


def check(plan: Plan, prepared: Prepared, memory: int | None = None) -> None:
    """Check the batch and the memory of every row that is trained.

    Args:
      plan: the table.
      prepared: its data.
      memory: bytes of a device; None = those of the first device, if known.

    Raises:
      ValueError: a batch is larger than the training split, or a row needs more than the memory in
        any case; the text estimates each part and names the knobs that make the largest smaller.
    """
    memory = memory or memory_.of_device()
    requests = len(prepared.splits["train"].request_id)
    for row in plan.rows:
        if row.trains and row.train.batch_size > requests:
            raise ValueError(
                f"config.train.batch_size is {row.train.batch_size}, but the training split has "
                f"only {requests} requests: choose at most {requests}"
            )
        if row.trains and memory is not None:
            _check_memory(row, _parts(row, plan, prepared), memory)


def _check_memory(row: Row, parts: list[Part], memory: int) -> None:
    """Refuse a row whose largest parts alone do not fit."""
    if sum(part.bytes for part in parts) <= memory:
        return
    needs = ", ".join(
        f"{part.bytes / GIB:.2f} GiB for {part.words}" for part in parts if part.bytes
    )
    first, second = max(parts, key=lambda part: part.bytes).cures
    raise ValueError(
        f"row {row.key!r} does not fit a device of {memory / GIB:.2f} GiB: it takes at least "
        f"{needs}; set {first}, or {second}"
    )


def _parts(row: Row, plan: Plan, prepared: Prepared) -> list[Part]:
    """Estimate the memory that a row needs in any case."""
    less = "a smaller config.train.micro_batch", "a smaller config.candidates.size"
    batch = Part("states of candidates and history", _states(row, prepared), less)
    data = 0 if row.train.stream else _data(prepared)
    cures = "config.train.stream=64", "a smaller config.candidates.size"
    return [
        Part("the data", data, cures),
        _of_reranker(row, plan, prepared),
        *_of_generator(row, plan, prepared),
        batch,
    ]


def _data(prepared: Prepared) -> int:
    """Count the bytes of the splits that live on the device."""
    batches = [prepared.splits[name].batch for name in ("train", "valid")]
    return sum(leaf.nbytes for leaf in jax.tree.leaves(batches))


def _of_reranker(row: Row, plan: Plan, prepared: Prepared) -> Part:
    """Estimate the reranker's tables: with moments, best values so far, and temporary copies.

    The temporary copies are the new best values of all trials, while these are stored, or the
    gradient and update of one trial, during a dense step.
    """
    updates, width, trials = row.optim.reranker.tables, _width(row), _trials(row)
    passing = max(trials, 2 if updates == "dense" else 1)
    copies = trials * (_copies(updates, width) + 1) + passing
    one = sum(prepared.spec.sizes.values()) * width * FLOAT_BYTES
    return _table_part("reranker", "reranker.width", updates, one * copies, plan)


def _of_generator(row: Row, plan: Plan, prepared: Prepared) -> list[Part]:
    """Estimate a learned generator's user and item tables, if it has any, with moments."""
    if row.generator is None or not isinstance(row.generator.settings, GeneratorSettings):
        return []
    spec, updates = prepared.spec, row.optim.generator.tables
    width = row.generator.settings.embedding_width
    one = (spec.sizes[spec.user[0]] + spec.sizes[spec.item[0]]) * width * FLOAT_BYTES
    copies = _trials(row) * _copies(updates, width)
    return [_table_part("generator", "generator.embedding_width", updates, one * copies, plan)]


def _table_part(player: str, width: str, updates: str, size: float, plan: Plan) -> Part:
    """Make the `Part` of a player's tables, of `size` bytes over all devices."""
    devices, sharded = jax.device_count(), plan.devices.shard_tables
    cures = [
        *([f"config.optim.{player}.tables=rowwise_adagrad"] * (updates != "rowwise_adagrad")),
        *(["config.devices.shard_tables=True"] * (devices > 1 and not sharded)),
        f"a smaller config.{width}",
        "config.devices.shard_tables=True on more devices",
    ]
    held = int(size) // (devices if sharded else 1)
    return Part(f"embedding tables of the {player}", held, (cures[0], cures[1]))


def _copies(updates: str, width: int) -> float:
    """Count a table's copies: its values and two moments, or one more number per row."""
    return 1 + 1 / max(width, 1) if updates == "rowwise_adagrad" else 3


def _trials(row: Row) -> int:
    return len(row.seeds) * len(row.train.learning_rate_factors)


def _states(row: Row, prepared: Prepared) -> int:
    """Count the bytes of one state for each candidate and event of the requests held at once."""
    request = prepared.splits["train"].batch.request
    tokens = request.candidates.shape[1] + request.history.shape[1]
    held = row.train.micro_batch or part_size(row.train.batch_size)
    return held // jax.device_count() * tokens * _width(row) * FLOAT_BYTES


def _width(row: Row) -> int:
    return getattr(row.reranker.settings, "width", 0)
