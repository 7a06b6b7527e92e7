"""Trees of arrays in the flat form that files hold: one name per array."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from dnr_jax.types import Params

_nest: Callable[..., dict[str, Any]] = traverse_util.unflatten_dict


def flatten(tree: Params, separator: str) -> dict[str, np.ndarray]:
    """Name each array by its path in nested dicts and lists, such as `a/b/0` with separator "/"."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    name = partial(jax.tree_util.keystr, simple=True, separator=separator)
    return {name(path): np.asarray(leaf) for path, leaf in leaves}


def unflatten(arrays: Mapping[str, Any], separator: str) -> dict[str, Any]:
    """Undo `flatten`; a list comes back as a dict keyed by position."""
    return _nest(arrays, sep=separator)
