"""Files of MovieLens-1M's schema from a latent model, with the truth kept aside (see `truth`).

A user's next item is drawn from those the user has not seen (Plackett-Luce, by popularity and
liking).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dnr_jax.data.folders import new_folder
from dnr_jax.data.movielens import truth
from dnr_jax.data.movielens.settings import MovieLensSimulation
from dnr_jax.data.movielens.truth import RATING_NOISE, World

WIDTH = 8
TIED_TIMES = 0.2
GENRES = ("Action", "Children's", "Comedy", "Drama", "Film-Noir", "Horror", "Sci-Fi", "War")
AGES = (1, 18, 25, 35, 45, 50, 56)
# Leading zeros and ZIP+4 forms: a zip code is text, not a number.
ZIPS = ("02460", "48067-1234", "55117", "98103")
FIRST_SECOND = 956_703_932


def simulate(folder: Path, settings: MovieLensSimulation) -> None:
    """Write `ratings.dat`, `users.dat`, `movies.dat` and `truth.npz` into a new folder.

    Every user has 20 or more ratings of different items, about one time stamp in five repeats
    the one before, item ids have gaps and some titles carry Latin-1 letters. The folder is made
    under a temporary name and renamed last.

    Raises:
      FileExistsError: the folder is there already.
    """
    draw = np.random.default_rng(settings.seed)
    world = _world(draw, settings.users, settings.movies)
    with new_folder(folder) as temporary:
        _write(temporary / "ratings.dat", _ratings(draw, world))
        _write(temporary / "users.dat", _people(draw, world))
        _write(temporary / "movies.dat", _movies(world))
        np.savez(temporary / truth.FILE, **world._asdict())


def _world(draw: np.random.Generator, users: int, items: int) -> World:
    kept = draw.choice(np.arange(1, int(items * 1.07) + 1), items, replace=False)
    scale = np.sqrt(0.7 / np.sqrt(WIDTH))  # p . q has standard deviation 0.7
    item_bias = draw.normal(0, 0.4, items)
    return World(
        users=np.arange(1, users + 1),
        items=np.sort(kept),
        p=draw.normal(0, scale, (users, WIDTH)),
        q=draw.normal(0, scale, (items, WIDTH)),
        user_bias=draw.normal(0, 0.35, users),
        item_bias=item_bias,
        popularity=draw.normal(0, 0.9, items) + item_bias,
    )


def _ratings(draw: np.random.Generator, world: World) -> list[str]:
    lines = []
    count = len(world.items)
    for u, user in enumerate(world.users):
        met = min(20 + int(draw.lognormal(3.5, 0.9)), count // 2)
        urge = world.popularity + 1.5 * world.q @ world.p[u] + draw.gumbel(size=count)
        chosen = np.argsort(-urge)[:met]
        liking = truth.liking(world, np.full(met, u), chosen) + draw.normal(0, RATING_NOISE, met)
        ratings = np.clip(np.rint(liking), 1, 5).astype(int)
        steps = draw.integers(5, 300, met) * (draw.random(met) > TIED_TIMES)
        times = FIRST_SECOND + draw.integers(0, 3 * 10**7) + np.cumsum(steps)
        # Sorted by item, as a reader must not rely on the file being in time order.
        for n in np.argsort(chosen):
            lines.append(f"{user}::{world.items[chosen[n]]}::{ratings[n]}::{times[n]}")
    return lines


def _people(draw: np.random.Generator, world: World) -> list[str]:
    lines = []
    for user, taste in zip(world.users, world.p, strict=True):
        gender = "M" if taste[0] + draw.normal() > -0.7 else "F"
        age, zip_code = draw.choice(AGES), draw.choice(ZIPS)
        lines.append(f"{user}::{gender}::{age}::{draw.integers(0, 21)}::{zip_code}")
    return lines


def _movies(world: World) -> list[str]:
    lines = []
    for item, vector in zip(world.items, world.q, strict=True):
        order = np.argsort(-vector)[: 1 + item % 3]
        name = f"Misérable, {item}: A Tale" if item % 70 == 0 else f"Story {item}"
        lines.append(f"{item}::{name} ({1930 + item % 70})::{'|'.join(GENRES[g] for g in order)}")
    return lines


def _write(path: Path, lines: list[str]) -> None:
    path.write_bytes("".join(line + "\n" for line in lines).encode("latin-1"))
