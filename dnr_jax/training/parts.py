"""A batch in parts: the activations of one part at a time, the gradient of the whole batch.

L_direct, L_z and L_adv are means over judged candidates, so that with w_c the share of the batch's
weight that part c has, `mean = sum_c w_c mean_c`, and gradients add up in the same way. L_x is no
such mean, but it needs no reranker: it is taken over the whole batch.

Parts that fit its caches are a quarter faster on a CPU; on an accelerator they save memory.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from dnr_jax.types import Array, Batch

CPU_PART = 64  # requests; 128 was as fast, 256 was not


def part_size(batch_size: int) -> int:
    """Choose the requests a part: few on a CPU, where they divide the batch, else all."""
    if jax.default_backend() == "cpu" and batch_size % CPU_PART == 0:
        return CPU_PART
    return batch_size


def check_part(part: int, batch_size: int) -> None:
    """Raise `ValueError` unless the batch is a whole number of parts."""
    if part < 1 or batch_size % part:
        raise ValueError(
            f"a batch of {batch_size} requests cannot be computed in parts of {part}: choose a "
            "size that divides it"
        )


def split(tree: Any, part: int) -> Any:
    """Reshape the leading axis of every array, `[B, ...]` -> `[B / part, part, ...]`."""
    return jax.tree.map(lambda a: a.reshape(a.shape[0] // part, part, *a.shape[1:]), tree)


def shares(parts: Batch) -> Array:
    """Return w_c `float32 [C]`, the part of the weight of judged candidates that each part has."""
    weights = jnp.sum(parts.weights, axis=(1, 2))
    return weights / jnp.maximum(jnp.sum(weights), 1e-9)
