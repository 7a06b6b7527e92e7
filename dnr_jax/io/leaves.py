"""The leaves of a pytree of arrays: described, compared, brought to the host and put back."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Leaf(NamedTuple):
    """What one array must look like: its path in the tree, dtype and shape."""

    path: str
    dtype: str
    shape: tuple[int, ...]


def specify(tree: Any) -> list[Leaf]:
    """Describe every leaf; also accepts `jax.ShapeDtypeStruct` leaves.

    Raises:
      ValueError: a leaf is not an array.
    """
    found = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        text = jax.tree_util.keystr(path)
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise ValueError(
                f"leaf {text} is a {type(leaf).__name__}, checkpoints hold arrays: "
                "wrap it in numpy.asarray or put it into the metadata"
            )
        found.append(Leaf(text, str(leaf.dtype), tuple(leaf.shape)))
    return found


def differences(saved: list[Leaf], wanted: list[Leaf]) -> list[str]:
    """Say how two descriptions of leaves differ, one line per leaf."""
    old, new = ({leaf.path: leaf for leaf in leaves} for leaves in (saved, wanted))
    return [
        *(f"{p}: saved, not wanted" for p in old if p not in new),
        *(f"{p}: wanted, not saved" for p in new if p not in old),
        *(
            f"{p}: saved {old[p].dtype}{list(old[p].shape)}, wanted {leaf.dtype}{list(leaf.shape)}"
            for p, leaf in new.items()
            if p in old and old[p] != leaf
        ),
    ]


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def host_arrays(tree: Any) -> list[np.ndarray]:
    """Return the leaves as numpy arrays, keys as their data."""
    found = jax.tree.leaves(tree)
    return [np.asarray(jax.random.key_data(x) if _is_key(x) else x) for x in found]


def empty_host(slot: Any) -> np.ndarray:
    """Make an array with the shape and dtype that `host_arrays` gives a leaf."""
    if _is_key(slot):
        slot = jax.eval_shape(jax.random.key_data, slot)
    return np.zeros(slot.shape, slot.dtype)


def saved_host(leaf: Leaf) -> np.ndarray:
    """Make the same as `empty_host`, for a leaf that is only described."""
    if not leaf.dtype.startswith("key<"):
        return np.zeros(leaf.shape, leaf.dtype)
    key = jax.random.key_data(jax.random.key(0))
    return np.zeros((*leaf.shape, *key.shape), key.dtype)


def place(array: np.ndarray, slot: Any) -> Any:
    """Put a restored array where the template's leaf lives."""
    if isinstance(slot, np.ndarray | np.generic):
        return array if isinstance(slot, np.ndarray) else array[()]
    if _is_key(slot):
        impl = jax.random.key_impl(jnp.empty((), slot.dtype))  # the slot may be abstract
        return jax.random.wrap_key_data(jnp.asarray(array), impl=impl)
    settled = not isinstance(slot, jax.Array) or slot.committed
    return jax.device_put(array, slot.sharding if settled else None)
