"""First stages that drift: changes of the test scores that a trained model may meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.types import Array


class Pool(NamedTuple):
    """The candidates of a split as a first stage sees them.

    Attributes:
      scores: x, `float32 [R, N]` in [0, 1], as in training.
      where: `bool [R, N]`.
      number: `uint32 [R]`, the requests' own numbers, folded into the keys of all draws.
      popularity: `float32 [R, N]`, training interactions of each candidate.
    """

    scores: Array
    where: Array
    number: Array
    popularity: Array


class Shift(NamedTuple):
    """A change of the scores.

    Attributes:
      label: its name in reports.
      scores: `(pool, key)` to the new scores, `float32 [R, N]` in [0, 1], 0 for padding.
    """

    label: str
    scores: Callable[[Pool, Array], Array]


def noisy(pool: Pool, key: Array, *, share: float) -> Array:
    """Mix uniform noise u into x and scale back: min_max((1 - share) x + share u)."""
    size = pool.scores.shape[1:]
    noise = ops.per_request(lambda k: jax.random.uniform(k, size), key, pool.number)
    return ops.min_max((1 - share) * pool.scores + share * noise, pool.where)


def popularity(pool: Pool, key: Array) -> Array:
    """Replace x by the logarithm of popularity, scaled per request."""
    del key
    return ops.min_max(jnp.log1p(pool.popularity), pool.where)


def ranks(pool: Pool, key: Array) -> Array:
    """Keep only the order of x: evenly spaced scores from 1 down to 0."""
    del key
    last = jnp.maximum(pool.where.sum(axis=1, keepdims=True) - 1, 1)
    places = ops.ranks(pool.scores, pool.where)
    return jnp.where(pool.where, 1 - (places - 1) / last, 0.0)


def squared(pool: Pool, key: Array) -> Array:
    """Change the scale of x but not its order: x^2."""
    del key
    return pool.scores**2


def missing(pool: Pool, key: Array) -> Array:
    """Set every score to 0."""
    del key
    return jnp.zeros_like(pool.scores)


def turned(pool: Pool, key: Array) -> Array:
    """Reverse the scores: 1 - x."""
    del key
    return jnp.where(pool.where, 1 - pool.scores, 0.0)


AS_TRAINED = "as_trained"
SHIFTS: dict[str, Shift] = {
    AS_TRAINED: Shift("as trained", lambda pool, _: pool.scores),
    "noise_50": Shift("50 % noise", lambda pool, key: noisy(pool, key, share=0.5)),
    "noise_100": Shift("100 % noise", lambda pool, key: noisy(pool, key, share=1.0)),
    "popularity": Shift("popularity", popularity),
    "ranks": Shift("ranks only", ranks),
    "squared": Shift("squared", squared),
    "missing": Shift("all 0", missing),
    "reversed": Shift("reversed", turned),
}
