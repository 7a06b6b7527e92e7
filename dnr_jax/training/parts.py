"""A batch in parts: the activations of one part at a time, the gradient of the whole batch.

L_direct, L_z and L_adv are means: if part c has the share w_c of the mean's mass, then
`mean = sum_c w_c mean_c`, and gradients add up in the same way. L_x is not such a mean, but it does
not need the reranker, so it is computed over the whole batch.

On a CPU, parts that fit its caches are a quarter faster; on an accelerator they save memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dnr_jax.types import Array, Batch

CPU_PART = 64  # requests; 128 was as fast, 256 was not


def part_size(batch_size: int) -> int:
    """Choose the requests per part: `CPU_PART` on a CPU if it divides the batch, else all."""
    if jax.default_backend() == "cpu" and batch_size % CPU_PART == 0:
        return CPU_PART
    return batch_size


def split(tree: Any, part: int) -> Any:
    """Reshape the leading axis of every array, `[B, ...]` -> `[B / part, part, ...]`."""
    return jax.tree.map(lambda a: a.reshape(a.shape[0] // part, part, *a.shape[1:]), tree)


def shares(parts: Batch, mass: Callable[[Array, Array], Array]) -> Array:
    """Return w_c `float32 [C]`, each part's share of the `mass` of a loss of `LOSSES`."""
    masses = jax.vmap(mass)(parts.labels, parts.weights)
    return masses / jnp.maximum(jnp.sum(masses), 1e-9)
