"""Beyond accuracy: the composition of the shown lists. Item id 0 means "no item in this slot"."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax import ops
from dnr_jax.types import Array

FIRST_KNOWN_ID = 2  # ids 0 (padding) and 1 (unknown) are not items
HEAD_SHARE = 0.2


def top_items(logits: Array, items: Array, where: Array, *, k: int) -> Array:
    """Return the item ids of the k highest logits, `int32 [B, k]`, 0 where a list is shorter.

    Ties go to the lower index, which is random because candidates are shuffled when written.

    Args:
      logits: `[B, N]`.
      items: `int32 [B, N]`, item ids.
      where: `bool [B, N]`; only real candidates are shown.
      k: list length, at most N.
    """
    _, index = jax.lax.top_k(ops.mask_logits(logits, where), k)
    return jnp.take_along_axis(jnp.where(where, items, 0), index, axis=-1)


def intra_list_diversity(items: Array, item_vectors: Array) -> tuple[Array, Array]:
    """Mean over the pairs of a list of 1 - cosine (Ziegler et al. 2005, as a distance).

    Args:
      items: `int32 [B, K]`, shown item ids, 0 = none.
      item_vectors: `float32 [V, d]`, any length; a zero vector is orthogonal to everything.

    Returns:
      `(value [B], valid [B])`; not valid with fewer than two items.
    """
    vectors = jnp.asarray(item_vectors)[items]
    length = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    shown = items > 0
    unit = jnp.where(shown[..., None], vectors / jnp.where(length > 0, length, 1.0), 0.0)
    # Sum over ordered pairs i != j of u_i . u_j = |sum u|^2 - sum |u|^2.
    similar = jnp.sum(jnp.sum(unit, axis=-2) ** 2, axis=-1) - jnp.sum(unit**2, axis=(-2, -1))
    count = jnp.sum(shown, axis=-1)
    pairs = count * (count - 1)
    return jnp.where(pairs > 0, 1 - similar / jnp.maximum(pairs, 1), 0.0), pairs > 0


def coverage(items: np.ndarray, catalogue: int) -> float:
    """Share of the catalogue shown at least once; unknown items are not counted.

    Args:
      items: integer `[R, K]`, shown item ids.
      catalogue: size V of the item vocabulary, padding and unknown included.
    """
    known = catalogue - FIRST_KNOWN_ID
    shown = np.unique(items)
    return float((shown >= FIRST_KNOWN_ID).sum() / known) if known > 0 else float("nan")


def head_items(item_popularity: np.ndarray) -> np.ndarray:
    """Mark the head, the 20 % most popular items in training (ties by id): `bool [V]`."""
    popularity = np.asarray(item_popularity, np.float64)[FIRST_KNOWN_ID:]
    size = int(np.ceil(HEAD_SHARE * popularity.size))
    head = np.zeros(len(item_popularity), bool)
    head[np.argsort(-popularity, kind="stable")[:size] + FIRST_KNOWN_ID] = True
    return head


def long_tail_share(items: np.ndarray, item_popularity: np.ndarray) -> float:
    """Share of filled slots that show an item outside the head; NaN if no slot is filled."""
    shown = items[items > 0]
    return float((~head_items(item_popularity)[shown]).mean()) if shown.size else float("nan")


def mean_popularity(items: np.ndarray, item_popularity: np.ndarray) -> float:
    """Mean number of training interactions of the shown items; NaN if no slot is filled."""
    shown = np.asarray(item_popularity, np.float64)[items[items > 0]]
    return float(shown.mean()) if shown.size else float("nan")
