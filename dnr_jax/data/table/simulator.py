"""A realistic log with known tastes: requests with lists of varying length, scores and clicks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from dnr_jax.data.table.settings import TableSimulation

FILE = "log.parquet"
WIDTH = 6
SHOWN = 10  # the first places, on which the user may click
UNPRICED = 0.1  # share of the items whose price is missing
LONG = 0.5  # share of the requests whose list is full
START = np.datetime64("2024-03-01T00:00:00", "us")
CITIES, BRANDS, TAGS = ("Oslo", "Kraków", "東京"), 12, 20


def simulate(folder: Path, settings: TableSimulation) -> None:
    """Write a table into `folder`, which must not exist.

    Raises:
      FileExistsError: the folder exists.
    """
    folder.mkdir()
    table(settings).write_parquet(folder / FILE)


def table(settings: TableSimulation) -> pl.DataFrame:
    """Draw the table.

    Items and users have taste vectors. A first stage scores candidates by them, with errors of
    spread `settings.noise`, and shows its best. The user clicks by taste, and less at lower
    positions. Items that were not shown have no label.
    """
    rng = np.random.default_rng(settings.seed)
    users = rng.normal(size=(settings.users, WIDTH))
    items = rng.normal(size=(settings.catalogue, WIDTH))
    user = rng.integers(settings.users, size=settings.requests)
    chosen, real = _lists(rng, settings)
    taste = np.einsum("rd,rcd->rc", users[user], items[chosen]) / np.sqrt(WIDTH)
    score = taste + settings.noise * rng.normal(size=taste.shape)
    place, label = _shown(rng, score, taste, real)
    seconds = np.sort(rng.integers(0, 28 * 86400, size=settings.requests))
    row, slot = np.nonzero(real)
    item = chosen[row, slot]
    rows = pl.DataFrame(
        {
            "request_id": row,
            "user_id": [f"user-{n}" for n in user[row]],
            "timestamp": (START + seconds.astype("timedelta64[s]"))[row],
            "item_id": item,
            "score": score[row, slot],
            "position": place[row, slot],
            "label": label[row, slot],
            "u_city": [CITIES[n % len(CITIES)] for n in user[row]],
            "c_weekday": (seconds // 86400 % 7)[row],
        }
    )
    hidden = pl.col("position") == 0
    only_shown = [pl.when(~hidden).then(pl.col(column)) for column in ("position", "label")]
    return rows.with_columns(only_shown).hstack(_features(rng, items)[item])


def _lists(rng: np.random.Generator, settings: TableSimulation) -> tuple[np.ndarray, np.ndarray]:
    """Draw the items of every request, `int [R, N]`, and which of them are real."""
    requests, size = settings.requests, settings.candidates
    length = rng.integers(1, size + 1, size=requests)
    length[rng.random(requests) < LONG] = size
    chosen = np.argsort(rng.random((requests, settings.catalogue)), axis=1)[:, :size]
    return chosen, np.arange(size) < length[:, None]


def _shown(
    rng: np.random.Generator, score: np.ndarray, taste: np.ndarray, real: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Show the best by `score` and draw clicks: places from 1, 0 = not shown, and labels."""
    place = 1 + np.argsort(np.argsort(np.where(real, -score, np.inf), axis=1), axis=1)
    shown = real & (place <= SHOWN)
    attention = 1 / np.log2(1 + place)
    clicked = shown & (rng.random(taste.shape) < attention / (1 + np.exp(-2 * taste)))
    return np.where(shown, place, 0), clicked.astype(np.float64)


def _features(rng: np.random.Generator, items: np.ndarray) -> pl.DataFrame:
    """Make features of every item of the catalogue, from its taste vector, and tags."""
    price = np.where(rng.random(len(items)) < UNPRICED, np.nan, np.exp(items[:, 0]))
    return pl.DataFrame(
        {
            "i_brand": np.argmax(items, 1) * 2 + np.arange(len(items)) % 2,
            "i_tags": rng.integers(TAGS, size=(len(items), 3)).tolist(),
            "i_price": pl.Series(price).fill_nan(None),
        }
    )
