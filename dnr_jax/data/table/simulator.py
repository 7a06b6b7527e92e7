"""A log as people keep it, with known tastes: requests of ragged lists, scored, shown, clicked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from dnr_jax.data.table.settings import TableSimulation

FILE = "log.parquet"
WIDTH = 6
SHOWN = 10  # the first places, of which the user clicks
UNPRICED = 0.1  # share of the items whose price is missing
LONG = 0.5  # share of the requests whose list is full
START = np.datetime64("2024-03-01T00:00:00", "us")
CITIES, BRANDS, TAGS = ("Oslo", "Kraków", "東京"), 12, 20


def simulate(folder: Path, settings: TableSimulation) -> None:
    """Write a table into `folder`, which must not exist.

    Raises:
      FileExistsError: the folder is there.
    """
    folder.mkdir()
    table(settings).write_parquet(folder / FILE)


def table(settings: TableSimulation) -> pl.DataFrame:
    """Draw the table.

    Items and users have tastes; a first stage scores candidates by them with an error of
    `settings.noise`, shows its best, and the user clicks by his taste and less further down. What
    was not shown has no label.
    """
    rng = np.random.default_rng(settings.seed)
    users = rng.normal(size=(settings.users, WIDTH))
    items = rng.normal(size=(settings.catalogue, WIDTH))
    requests = settings.requests
    user = rng.integers(settings.users, size=requests)
    length = rng.integers(1, settings.candidates + 1, size=requests)
    length[rng.random(requests) < LONG] = settings.candidates
    chosen = np.argsort(rng.random((requests, settings.catalogue)), axis=1)[
        :, : settings.candidates
    ]
    real = np.arange(settings.candidates) < length[:, None]
    taste = np.einsum("rd,rcd->rc", users[user], items[chosen]) / np.sqrt(WIDTH)
    score = taste + settings.noise * rng.normal(size=taste.shape)
    place = 1 + np.argsort(np.argsort(np.where(real, -score, np.inf), axis=1), axis=1)
    shown = real & (place <= SHOWN)
    attention = 1 / np.log2(1 + place)
    clicked = shown & (rng.random(taste.shape) < attention / (1 + np.exp(-2 * taste)))
    row, slot = np.nonzero(real)
    item = chosen[row, slot]
    seconds = np.sort(rng.integers(0, 28 * 86400, size=requests))
    time = START + seconds.astype("timedelta64[s]")
    price = np.where(rng.random(settings.catalogue) < UNPRICED, np.nan, np.exp(items[:, 0]))
    tags = rng.integers(TAGS, size=(settings.catalogue, 3))
    frame = pl.DataFrame(
        {
            "request_id": row,
            "user_id": [f"user-{n}" for n in user[row]],
            "timestamp": time[row],
            "item_id": item,
            "score": score[row, slot],
            "position": np.where(shown, place, 0)[row, slot],
            "label": clicked[row, slot].astype(np.float64),
            "u_city": [CITIES[n % len(CITIES)] for n in user[row]],
            "c_weekday": (seconds // 86400 % 7)[row],
            "i_brand": (np.argmax(items[:, :WIDTH], 1)[item] * 2 + item % 2),
            "i_tags": tags[item].tolist(),
            "i_price": pl.Series(price[item]).fill_nan(None),
        }
    )
    hidden = pl.col("position") == 0
    return frame.with_columns(
        pl.when(~hidden).then(pl.col(column)) for column in ("position", "label")
    )
