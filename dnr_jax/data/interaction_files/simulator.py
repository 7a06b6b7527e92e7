"""Small synthetic files in every published format, from one latent model.

A user's next item is drawn by popularity and liking; a rating is the liking, rounded.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dnr_jax.data.folders import new_folder
from dnr_jax.data.interaction_files.settings import InteractionSimulation

WIDTH = 8
FEWEST = 20  # interactions of a user
FIRST_SECOND, DAY = 1_300_000_000, 86_400
GENRES = ("Action", "Comedy", "Drama", "Horror", "Romance", "Sci-Fi")


class Rows(NamedTuple):
    """Interactions `[M]`, sorted by user and then by time, and genres `[items]`."""

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    time: np.ndarray
    genre: np.ndarray


def simulate(folder: Path, settings: InteractionSimulation) -> None:
    """Write a new folder in the format `settings.layout`, under a temporary name and renamed last.

    Raises:
      FileExistsError: the folder exists.
    """
    rows = _rows(np.random.default_rng(settings.seed), settings.users, settings.catalogue)
    with new_folder(folder) as temporary:
        for name, lines in WRITERS[settings.layout](rows).items():
            _write(temporary / name, lines)


def _rows(draw: np.random.Generator, users: int, items: int) -> Rows:
    p, q = draw.normal(size=(users, WIDTH)), draw.normal(size=(items, WIDTH))
    liking = 3.4 + p @ q.T / WIDTH**0.5 * 0.8 + draw.normal(0, 0.3, items)
    urge = 0.5 * liking - np.log(1 + draw.permutation(items)) + draw.gumbel(size=liking.shape)
    counts = np.minimum(FEWEST + draw.lognormal(3.3, 0.8, users).astype(int), items // 2)
    met = np.argsort(-urge, axis=1)
    user = np.repeat(np.arange(users), counts)
    item = np.concatenate([met[u, :n] for u, n in enumerate(counts)])
    noisy = liking[user, item] + draw.normal(0, 0.5, len(user))
    rating = np.clip(np.round(noisy), 1, 5)
    first = FIRST_SECOND + draw.integers(0, 900, users) * DAY
    days = draw.integers(0, 3, len(user))
    time = first[user] + DAY * (
        np.cumsum(days) - np.repeat(np.cumsum(days)[_starts(counts)], counts)
    )
    return Rows(user, item, rating, time, q[:, : len(GENRES)].argmax(1))


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.asarray(np.cumsum(counts) - counts)


def _asin(number: int) -> str:
    return f"B{number:09d}" if number % 5 else f"{number:09d}X"  # of books, also with zeros first


def _member(number: int) -> str:
    return f"A{number:013X}"


def _each(rows: Rows) -> Any:
    columns = (rows.user, rows.item, rows.rating, rows.time)
    return zip(*(column.tolist() for column in columns), strict=True)


def _movielens_csv(rows: Rows) -> dict[str, list[str]]:
    movies = [f'{i + 1},"Tale {i}, The (1999)",{GENRES[g]}|Drama' for i, g in enumerate(rows.genre)]
    ratings = [f"{u + 1},{i + 1},{r - 0.5 * (i % 2)},{t}" for u, i, r, t in _each(rows)]
    return {
        "ratings.csv": ["userId,movieId,rating,timestamp", *ratings],
        "movies.csv": ["movieId,title,genres", *movies],
    }


def _movielens_dat(rows: Rows) -> dict[str, list[str]]:
    movies = [f"{i + 1}::Tale: {i} (1999)::{GENRES[g]}|Drama" for i, g in enumerate(rows.genre)]
    ratings = [f"{u + 1}::{i + 1}::{r:g}::{t}" for u, i, r, t in _each(rows)]
    return {"ratings.dat": ratings, "movies.dat": movies}


def _movielens_100k(rows: Rows) -> dict[str, list[str]]:
    movies = [
        f"{i + 1}|Tale {i}|01-Jan-1999||http://none|"
        + "|".join("1" if n == g else "0" for n in range(19))
        for i, g in enumerate(rows.genre)
    ]
    return {
        "u.data": [f"{u + 1}\t{i + 1}\t{r:.0f}\t{t}" for u, i, r, t in _each(rows)],
        "u.item": movies,
    }


def _reviews(year: int) -> Callable[[Rows], dict[str, list[str]]]:
    own: dict[str, Any] = {"helpful": [0, 0]} if year == 2014 else {"verified": True}
    start, name = ("reviews_", "categories") if year == 2014 else ("", "category")

    def write(rows: Rows) -> dict[str, list[str]]:
        reviews = [
            own
            | {"reviewerID": _member(u), "asin": _asin(i), "overall": r, "unixReviewTime": t}
            | ({"style": {"Format:": "Kindle"}} if i % 3 == 0 else {})
            for u, i, r, t in _each(rows)
        ]
        goods = [{"asin": _asin(i), name: [["Books", GENRES[g]]]} for i, g in enumerate(rows.genre)]
        literal = repr if year == 2014 else json.dumps
        return {
            f"{start}Books_5.json.gz": [json.dumps(review) for review in reviews],
            "meta_Books.json.gz": [literal(one) for one in goods],
        }

    return write


def _reviews_2023(rows: Rows) -> dict[str, list[str]]:
    goods = [
        {"parent_asin": _asin(i), "store": GENRES[g], "categories": ["Books", GENRES[g]]}
        for i, g in enumerate(rows.genre)
    ]
    reviews = [
        {"rating": r, "asin": "B000000000", "parent_asin": _asin(i), "user_id": _member(u)}
        | {"timestamp": t * 1000, "images": [], "verified_purchase": True}
        for u, i, r, t in _each(rows)
    ]
    return {
        "Books.jsonl.gz": [json.dumps(review) for review in reviews],
        "meta_Books.jsonl.gz": [json.dumps(one) for one in goods],
    }


def _ratings_2014(rows: Rows) -> dict[str, list[str]]:
    return {"ratings_Books.csv": [f"{_member(u)},{_asin(i)},{r},{t}" for u, i, r, t in _each(rows)]}


def _ratings_2018(rows: Rows) -> dict[str, list[str]]:
    return {"Books.csv": [f"{_asin(i)},{_member(u)},{r},{t}" for u, i, r, t in _each(rows)]}


def _ratings_2023(rows: Rows) -> dict[str, list[str]]:
    ratings = [f"{_member(u)},{_asin(i)},{r},{t * 1000}" for u, i, r, t in _each(rows)]
    return {"Books.csv.gz": ["user_id,parent_asin,rating,timestamp", *ratings]}


def _sequences(rows: Rows) -> dict[str, list[str]]:
    edges = np.flatnonzero(np.diff(rows.user)) + 1
    lines = [
        f"{n} " + " ".join(map(str, s + 1)) for n, s in enumerate(np.split(rows.item, edges), 1)
    ]
    return {"Books.txt": lines}


def _columns(rows: Rows) -> dict[str, list[str]]:
    lines = [f"member {u}\tsku {i}\t{t}\t{r}" for u, i, r, t in _each(rows)]
    return {"events.tsv": ["user_id\titem_id\ttimestamp\trating", *lines]}


WRITERS: dict[str, Callable[[Rows], dict[str, list[str]]]] = {
    "movielens_csv": _movielens_csv,
    "movielens_dat": _movielens_dat,
    "movielens_100k": _movielens_100k,
    "amazon_2014_reviews": _reviews(2014),
    "amazon_2018_reviews": _reviews(2018),
    "amazon_2023_reviews": _reviews_2023,
    "amazon_2014_ratings": _ratings_2014,
    "amazon_2018_ratings": _ratings_2018,
    "amazon_2023_ratings": _ratings_2023,
    "sequences": _sequences,
    "columns": _columns,
}


def _write(path: Path, lines: list[str]) -> None:
    content = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content, 1, mtime=0) if path.suffix == ".gz" else content)
