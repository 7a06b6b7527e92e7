"""Files of MovieLens-1M's schema from a latent model, with the truth kept aside.

A user likes item i as much as c + b_u + b_i + p_u . q_i; what he meets next is drawn from the
items he has not met (Plackett-Luce, by popularity and liking), what he rates is the liking plus
noise, rounded and cut to 1..5.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

WIDTH = 8
# Below the mean rating of 3.58: users meet what they like more often than the rest.
BASE_LIKING, RATING_NOISE = 2.85, 0.75
TIED_TIMES = 0.2
GENRES = ("Action", "Children's", "Comedy", "Drama", "Film-Noir", "Horror", "Sci-Fi", "War")
AGES = (1, 18, 25, 35, 45, 50, 56)
# Leading zeros and ZIP+4 forms: a zip code is text, not a number.
ZIPS = ("02460", "48067-1234", "55117", "98103")
FIRST_SECOND = 956_703_932


class _World(NamedTuple):
    users: np.ndarray  # raw ids
    items: np.ndarray
    p: np.ndarray
    q: np.ndarray
    user_bias: np.ndarray
    item_bias: np.ndarray
    popularity: np.ndarray


def simulate(folder: Path, *, users: int, items: int, seed: int) -> None:
    """Write `ratings.dat`, `users.dat`, `movies.dat` and `truth.npz` into a new folder.

    Every user has 20 or more ratings of different items, about one time stamp in five repeats
    the one before, item ids have gaps and some titles carry Latin-1 letters. The folder is made
    under a temporary name and renamed last.

    Raises:
      ValueError: fewer than 1 user or 40 items.
      FileExistsError: the folder is there already.
    """
    if users < 1 or items < 40:
        raise ValueError(f"cannot simulate {users} users and {items} items: need >= 1 and >= 40")
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: delete it to simulate anew")
    draw = np.random.default_rng(seed)
    world = _world(draw, users, items)
    temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    temporary.mkdir(parents=True)
    try:
        _write(temporary / "ratings.dat", _ratings(draw, world))
        _write(temporary / "users.dat", _people(draw, world))
        _write(temporary / "movies.dat", _movies(world))
        np.savez(temporary / "truth.npz", **world._asdict())
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def truth(
    folder: Path, *, positive_rating: float
) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """Return P(rating >= `positive_rating`) of raw users and items; None without `truth.npz`.

    The function broadcasts its two `int64` arguments and returns float32 in [0, 1].
    """
    file = Path(folder) / "truth.npz"
    if not file.exists():
        return None
    with np.load(file) as stored:
        world = _World(**{name: stored[name] for name in _World._fields})

    def probability(user: np.ndarray, item: np.ndarray) -> np.ndarray:
        u = np.searchsorted(world.users, user)
        i = np.searchsorted(world.items, item)
        # A rating is rounded: it reaches the threshold from half a star below.
        margin = _liking(world, u, i) - (np.ceil(positive_rating) - 0.5)
        return ndtr(margin / RATING_NOISE).astype(np.float32)

    return probability


def _liking(world: _World, u: np.ndarray, i: np.ndarray) -> np.ndarray:
    taste = (world.p[u] * world.q[i]).sum(-1)
    return BASE_LIKING + world.user_bias[u] + world.item_bias[i] + taste


def _world(draw: np.random.Generator, users: int, items: int) -> _World:
    kept = draw.choice(np.arange(1, int(items * 1.07) + 1), items, replace=False)
    scale = np.sqrt(0.7 / np.sqrt(WIDTH))  # p . q has standard deviation 0.7
    item_bias = draw.normal(0, 0.4, items)
    return _World(
        users=np.arange(1, users + 1),
        items=np.sort(kept),
        p=draw.normal(0, scale, (users, WIDTH)),
        q=draw.normal(0, scale, (items, WIDTH)),
        user_bias=draw.normal(0, 0.35, users),
        item_bias=item_bias,
        popularity=draw.normal(0, 0.9, items) + item_bias,
    )


def _ratings(draw: np.random.Generator, world: _World) -> list[str]:
    lines = []
    count = len(world.items)
    for u, user in enumerate(world.users):
        met = min(20 + int(draw.lognormal(3.5, 0.9)), count // 2)
        urge = world.popularity + 1.5 * world.q @ world.p[u] + draw.gumbel(size=count)
        chosen = np.argsort(-urge)[:met]
        liking = _liking(world, np.full(met, u), chosen) + draw.normal(0, RATING_NOISE, met)
        ratings = np.clip(np.rint(liking), 1, 5).astype(int)
        steps = draw.integers(5, 300, met) * (draw.random(met) > TIED_TIMES)
        times = FIRST_SECOND + draw.integers(0, 3 * 10**7) + np.cumsum(steps)
        # Sorted by item, as a reader must not rely on the file being in time order.
        for n in np.argsort(chosen):
            lines.append(f"{user}::{world.items[chosen[n]]}::{ratings[n]}::{times[n]}")
    return lines


def _people(draw: np.random.Generator, world: _World) -> list[str]:
    lines = []
    for user, taste in zip(world.users, world.p, strict=True):
        gender = "M" if taste[0] + draw.normal() > -0.7 else "F"
        age, zip_code = draw.choice(AGES), draw.choice(ZIPS)
        lines.append(f"{user}::{gender}::{age}::{draw.integers(0, 21)}::{zip_code}")
    return lines


def _movies(world: _World) -> list[str]:
    lines = []
    for item, vector in zip(world.items, world.q, strict=True):
        order = np.argsort(-vector)[: 1 + item % 3]
        name = f"Misérable, {item}: A Tale" if item % 70 == 0 else f"Story {item}"
        lines.append(f"{item}::{name} ({1930 + item % 70})::{'|'.join(GENRES[g] for g in order)}")
    return lines


def _write(path: Path, lines: list[str]) -> None:
    path.write_bytes("".join(line + "\n" for line in lines).encode("latin-1"))
