"""The truth of the simulated data, stored beside its files.

A user's liking of item i is c + b_u + b_i + p_u . q_i; the rating is that plus noise, rounded and
clipped to 1..5.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from scipy.special import ndtr

from dnr_jax.data.movielens.settings import MovieLensSettings

FILE = "truth.npz"
# Below the mean rating of 3.58: users see items that they like more often than others.
BASE_LIKING, RATING_NOISE = 2.85, 0.75


class World(NamedTuple):
    """Users and items.

    Attributes:
      users `int64 [U]`, items `int64 [V]`: raw ids, sorted.
      p `float64 [U, d]`, q `float64 [V, d]`: user tastes, and item attributes.
      user_bias `float64 [U]`, item_bias `float64 [V]`.
      popularity: `float64 [V]`, log-odds of being seen.
    """

    users: np.ndarray
    items: np.ndarray
    p: np.ndarray
    q: np.ndarray
    user_bias: np.ndarray
    item_bias: np.ndarray
    popularity: np.ndarray


def liking(world: World, u: np.ndarray, i: np.ndarray) -> np.ndarray:
    """Return the mean rating of items `i` by users `u`, both as row numbers: float64."""
    taste = (world.p[u] * world.q[i]).sum(-1)
    return np.asarray(BASE_LIKING + world.user_bias[u] + world.item_bias[i] + taste)


def _load(file: Path) -> World:
    try:
        with open(file, "rb") as raw, np.load(raw, allow_pickle=False) as stored:
            return World(**{name: stored[name] for name in World._fields})
    except (KeyError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{file} is not the truth of a simulation ({error}): delete it, or the whole folder "
            "to simulate anew"
        ) from error


def truth(
    path: Path, settings: MovieLensSettings
) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """Return P(rating >= positive rating) of raw users and items; None without `FILE`.

    The function broadcasts its two `int64` arguments and returns float32 in [0, 1].

    Raises:
      ValueError: the file was not written by a simulator.
    """
    file = path / FILE
    if not file.exists():
        return None
    world = _load(file)

    def probability(user: np.ndarray, item: np.ndarray) -> np.ndarray:
        u = np.searchsorted(world.users, user)
        i = np.searchsorted(world.items, item)
        # Ratings are rounded, so one reaches the threshold from half a star below it.
        margin = liking(world, u, i) - (np.ceil(settings.positive_rating) - 0.5)
        return np.asarray(ndtr(margin / RATING_NOISE), np.float32)

    return probability
