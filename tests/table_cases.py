"""Small hand-made log tables for the tests of `data/table`."""

import numpy as np
import polars as pl

from dnr_jax.data import store, table
from dnr_jax.data.settings import Shape
from dnr_jax.data.table.settings import TableSettings

HOUR = 3600


def log(requests=40, candidates=4, users=5, **columns):
    """Every request scores `candidates` items, shows the first three and has the second liked."""
    request = np.repeat(np.arange(requests), candidates)
    slot = np.tile(np.arange(candidates), requests)
    frame = pl.DataFrame(
        {
            "request_id": request,
            "user_id": request % users,
            "timestamp": 1_700_000_000 + HOUR * request,
            "item_id": (request * 3 + slot) % 11 + 100,
            "score": 1.0 - 0.1 * slot + 0.001 * request,
            "position": pl.Series([1, 2, 3, *[None] * (candidates - 3)] * requests, dtype=pl.Int64),
            "label": pl.Series([0.0, 1.0, 0.0, *[None] * (candidates - 3)] * requests),
        }
    )
    return frame.with_columns(**columns) if columns else frame


def put(frame, row, **values):
    """Replace values in one row."""
    at = pl.int_range(pl.len()) == row
    return frame.with_columns(
        pl.when(at).then(pl.lit(value, frame[name].dtype)).otherwise(pl.col(name)).alias(name)
        for name, value in values.items()
    )


def prepare(given, folder, *, size=8, slate=3, seed=0, **knobs):
    """Build the arrays of a table, every time anew."""
    settings = TableSettings(**{"history": 4, **knobs})

    def build(writer):
        table.build(writer, given, settings, Shape(size, slate), seed=seed, progress=False)

    recipe = {"given": str(id(given)), "knobs": repr(settings), "seed": seed}
    return store.prepare(folder / "cache", recipe, build)


def examine(given, **knobs):
    return table.examine(given, TableSettings(**knobs), seed=0)
