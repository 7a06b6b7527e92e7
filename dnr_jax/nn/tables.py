"""Tables whose cost does not grow with their rows: gather a batch's rows, write them back.

Training works on a small state, in which the batch's distinct rows replace each table and its
moments. Row-wise updates, such as Adam and row-wise Adagrad, are then computed only for these rows.
This is the sparse update of torchrec and of TensorFlow's LazyAdam: rows that a batch does not read
keep their values and their moments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.linear import default_embed_init
from flax.typing import Initializer

from dnr_jax.types import Array

# How tables are updated: every row by Adam, or the rows of the batch by Adam or row-wise Adagrad.
UPDATES = ("dense", "lazy_adam", "rowwise_adagrad")
# Names of parameters that are tables: in `nn.embeddings.FeatureEmbedding`, and in `Embed`.
NAMES = ("table", "embedding")
# A table's name is its path in the parameters: keys of dicts and indices of lists.
Name = tuple[str | int, ...]
RowsOf = Mapping[Name, Array]


class Rows(NamedTuple):
    """The gathered rows that replace a table in a model's parameters.

    Attributes:
      ids: `int32 [R]`, which rows of the table, ascending; see `distinct`.
      values: `float32 [R, D]`.
    """

    ids: Array
    values: Array


class Embed(nn.Module):
    """`flax.linen.Embed` that can also read gathered rows: `int [...]` -> `float32 [..., D]`.

    Attributes:
      rows: number of rows of the table; an id beyond them gives NaN.
      width: D.
    """

    rows: int
    width: int

    @nn.compact
    def __call__(self, ids: Array) -> Array:
        """Return the rows `ids`."""
        shape = (self.rows, self.width)
        table = parameter(self, "embedding", default_embed_init, shape)
        return read(table, ids, mode="fill")


def parameter(
    module: nn.Module, name: str, initial: Initializer, shape: tuple[int, int]
) -> Array | Rows:
    """Return a module's table, or the gathered rows that replace it, which have other shapes."""
    given: Any = module.get_variable("params", name)
    if isinstance(given, Rows):
        return given
    table: Array = module.param(name, initial, shape)
    return table


def read(table: Array | Rows, ids: Array, *, mode: str) -> Array:
    """Return rows `ids` `int [...]` as `float32 [..., D]`; NaN for a row that was not gathered.

    Args:
      table: a whole table, or gathered rows; a table of single numbers has no axis D.
      ids: row numbers in the whole table.
      mode: mode of `jnp.take` for ids outside a whole table.
    """
    if not isinstance(table, Rows):
        return jnp.take(table, ids, axis=0, mode=mode)
    place = jnp.searchsorted(table.ids, ids)
    held = jnp.take(table.ids, place, mode="clip") == ids
    found = jnp.take(table.values, place, axis=0, mode="clip")
    return jnp.where(held.reshape(held.shape + (1,) * (table.values.ndim - 1)), found, jnp.nan)


def distinct(ids: Array, *, rows: int) -> Array:
    """Sort `ids` `int32 [R]` of a table of `rows` rows without repeats: `int32 [min(R, rows)]`.

    The remaining places hold distinct numbers >= `rows`, which are not rows.
    """
    ordered = jnp.sort(jnp.clip(ids, 0, rows - 1))
    again = jnp.concatenate([jnp.zeros(ordered[:1].shape, bool), ordered[1:] == ordered[:-1]])
    beyond = rows + jnp.arange(len(ordered), dtype=ordered.dtype)
    return jnp.sort(jnp.where(again, beyond, ordered))[:rows]


def gather(tree: Any, rows: RowsOf) -> Any:
    """Replace every array called `name`, moments included, by its rows `rows[name]`.

    Args:
      tree: parameters, optimiser state or a tree that contains them. An array `[V, ...]` has a
        table's name if its path ends with it.
      rows: from `distinct`.
    """

    def take(path: tuple[Any, ...], leaf: Array) -> Array:
        here = _find(path, rows)
        return leaf if here is None else jnp.take(leaf, here, axis=0, mode="clip")

    return jax.tree_util.tree_map_with_path(take, tree)


def scatter(tree: Any, small: Any, rows: RowsOf) -> Any:
    """Write the rows from `gather`, which have changed since, back into `tree`."""

    def put(path: tuple[Any, ...], leaf: Array, new: Array) -> Array:
        here = _find(path, rows)
        if here is None:
            return new
        return leaf.at[here].set(new, mode="drop", unique_indices=True, indices_are_sorted=True)

    return jax.tree_util.tree_map_with_path(put, tree, small)


def join(params: Any, rows: RowsOf) -> Any:
    """Add the row numbers to parameters from `gather`, so that a model can read them."""

    def mark(path: tuple[Any, ...], leaf: Array) -> Array | Rows:
        here = _find(path, rows)
        return leaf if here is None else Rows(here, leaf)

    return jax.tree_util.tree_map_with_path(mark, params)


def names(path: tuple[Any, ...]) -> Name:
    """Return the names at the end of a path: a parameter's name, in any tree that contains it."""
    found: list[str | int] = []
    for key in reversed(path):
        if isinstance(key, jax.tree_util.DictKey):
            found.insert(0, key.key)
        elif isinstance(key, jax.tree_util.SequenceKey):
            found.insert(0, key.idx)
        else:
            break
    return tuple(found)


def _find(path: tuple[Any, ...], rows: RowsOf) -> Array | None:
    name = names(path)
    return next((rows[name[i:]] for i in range(len(name)) if name[i:] in rows), None)
