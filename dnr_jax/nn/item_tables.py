"""A task's tables of the catalogue's items, with one row per encoded item id."""

from __future__ import annotations

import numpy as np

from dnr_jax.types import Task


def popularity_of(task: Task) -> np.ndarray:
    """Return `task.item_popularity` as `float32 [V]`.

    Raises:
      ValueError: it is not given, or is not one number per item id.
    """
    return _checked(task, "item_popularity", task.item_popularity, axes=("V",))


def vectors_of(task: Task) -> np.ndarray:
    """Return `task.item_vectors` as `float32 [V, E]`, E >= 1.

    Raises:
      ValueError: they are not given, or are not one vector per item id.
    """
    return _checked(task, "item_vectors", task.item_vectors, axes=("V", "E"))


def padded(table: np.ndarray, rows: int) -> np.ndarray:
    """Add rows of zeros to a table of items, for ids that never occur (`sharding.rounded`)."""
    table = np.asarray(table)
    return np.pad(table, [(0, max(rows - len(table), 0))] + [(0, 0)] * (table.ndim - 1))


def _checked(
    task: Task, name: str, table: np.ndarray | None, *, axes: tuple[str, ...]
) -> np.ndarray:
    column = task.spec.item[0]
    items = task.spec.sizes[column]
    if table is None:
        raise ValueError(f"{name} is not given: use the one prepared with the data set")
    found = np.asarray(table, np.float32)
    if found.ndim != len(axes) or len(found) != items or not found.size:
        needed = str((items, *axes[1:])).replace("'", "")
        raise ValueError(
            f"{name} has shape {found.shape}, but the items of {column!r} need {needed}: "
            "use the one prepared with this data set"
        )
    return found
