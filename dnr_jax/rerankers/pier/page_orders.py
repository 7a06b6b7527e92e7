"""Orders of a page, and how far their hashes are from those of the pages that a user saw before.

The fine-grained permutation selection module (FPSM) of PIER (Shi et al. 2023, arXiv 2302.03487). A
page is a list of K items. With PE `[K, D]` a table of places and R `[D, bits]` a fixed normal
matrix,

    v = mean_k e_k PE_k,   s = sign(R^T v),   d = sum_p w_p |s - s_p|_1

over the user's pages p. The authors' code multiplies v by positive numbers in place of R, so its
signs are those of v and there is no projection.
"""

from __future__ import annotations

from itertools import permutations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax.nn.slates import take_items
from dnr_jax.types import Array

# Latest page first: the authors' 1/2, 1/2, 1/3, 1/3, 1/4 times 12, so that sums are exact.
PAGE_WEIGHTS = (6.0, 6.0, 4.0, 4.0, 3.0)
BITS = 16
# 6! = 720 orders; the places of a longer page from the seventh on keep their items.
PLACES_TO_ORDER = 6


class Proposals(NamedTuple):
    """Orders of one page.

    Attributes:
      lists: `int32 [B, L, K]`.
      where: `bool [B, L]`, True = a list to consider.
    """

    lists: Array
    where: Array


def cut_pages(events: Array, size: int) -> Array:
    """Cut a history into pages from its end: at most `len(PAGE_WEIGHTS)` of them, latest first.

    Args:
      events: `[B, T, ...]`, latest last.
      size: K.

    Returns:
      `[B, P, K, ...]`, the events of a page in their order; 0 (False) before the first event.
    """
    count = -(-events.shape[1] // size)
    before = [(0, 0), (count * size - events.shape[1], 0)] + [(0, 0)] * (events.ndim - 2)
    pages = jnp.pad(events, before).reshape(events.shape[0], count, size, *events.shape[2:])
    return pages[:, ::-1][:, : len(PAGE_WEIGHTS)]


def page_orders(size: int) -> np.ndarray:
    """List the orders of a page of K: `int32 [M, K]`, the item of each place; 0 is the identity."""
    first = min(size, PLACES_TO_ORDER)
    rest = tuple(range(first, size))
    return np.array([order + rest for order in permutations(range(first))], np.int32)


def hash_matrix(width: int) -> np.ndarray:
    """Draw R, `float32 [D, BITS]`, which is always the same."""
    return np.random.default_rng(0).normal(size=(width, BITS)).astype(np.float32)


def signs(projected: Array) -> Array:
    """Return +1 where >= 0, else -1; never 0, so that all signatures have the same norm."""
    return jnp.where(projected >= 0, 1.0, -1.0)


def page_signatures(pages: Array, where: Array, places: Array) -> Array:
    """Compute s of pages `[B, P, K, D]` under `where [B, P, K]`: `float32 [B, P, BITS]`.

    The sum over places is used in place of the mean, which has the same signs.
    """
    vectors = jnp.where(where[..., None], pages * places[None, None], 0.0).sum(axis=2)
    return signs(vectors @ hash_matrix(places.shape[-1]))


def order_signatures(items: Array, places: Array, orders: np.ndarray) -> Array:
    """Compute s of all orders of the items `[B, K, D]`: `float32 [B, M, BITS]`.

    Each item is projected at each place before the orders add them up; the M pages are never made.
    An absent item is a vector of zeros.
    """
    size, width = places.shape
    projected = (items[:, :, None] * places[None, None]) @ hash_matrix(width)  # [B, item, place, .]
    placed = orders[:, None, :] == np.arange(size)[None, :, None]  # [M, item, place]
    flat = placed.reshape(len(orders), -1).astype(np.float32)
    return signs(flat @ projected.reshape(items.shape[0], size * size, BITS))


def page_distances(signatures: Array, met: Array, weights: Array) -> Array:
    """Compute d = sum_p w_p sum_r |s_r - s_pr|, twice the weighted Hamming distance.

    Args:
      signatures: s, `float32 [B, M, BITS]` of -1 and 1.
      met: s_p, `float32 [B, P, BITS]`, of the user's pages.
      weights: w_p, `float32 [B, P]` >= 0; 0 = no page.

    Returns:
      `float32 [B, M]`.
    """
    # |a - b| = 1 - a b for signs, so the pages can be summed first.
    heard = (weights[..., None] * met).sum(axis=1)
    return BITS * weights.sum(axis=1, keepdims=True) - (signatures @ heard[..., None])[..., 0]


def nearest_and_farthest(
    page: Array, distances: Array, orders: np.ndarray, count: int
) -> tuple[Proposals, Proposals]:
    """Keep the nearest and the farthest orders of a page, at most `count` each.

    The first of the nearest is the identity, whatever its distance; it is not among the farthest,
    unless there are no others. Equal distances keep the order of `orders`. Empty places of a page
    stay at its end.

    Args:
      page: `int32 [B, K]`, -1 = no item, at the end.
      distances: `float32 [B, M]` >= 0.
      orders: from `page_orders`.
      count: at most M.
    """
    moved = (orders != np.arange(orders.shape[1])[None]) * np.arange(1, orders.shape[1] + 1)[None]
    allowed = moved.max(axis=1)[None] <= (page >= 0).sum(axis=1, keepdims=True)
    away = distances.at[:, 0].set(-1.0)

    def keep(preference: Array) -> Proposals:
        best, chosen = jax.lax.top_k(jnp.where(allowed, preference, -jnp.inf), count)
        return Proposals(take_items(page, jnp.asarray(orders)[chosen]), jnp.isfinite(best))

    return keep(-away), keep(away)
