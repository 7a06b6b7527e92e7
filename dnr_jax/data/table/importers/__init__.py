"""Import common file formats as log tables: frames with the customary column names.

    frame = importers.read_letor("train.txt")
    frame.write_parquet("log.parquet")

An importer checks only what is specific to its format; the table's reader does the rest.
"""

from __future__ import annotations

import polars as pl

from dnr_jax.data.store import SPLITS
from dnr_jax.data.table.importers.letor import read_letor
from dnr_jax.data.table.importers.mind import read_ebnerd, read_mind
from dnr_jax.data.table.importers.recbole import read_recbole
from dnr_jax.data.table.importers.trec import read_qrels, read_trec
from dnr_jax.settings import unknown

__all__ = [
    "join_splits",
    "read_ebnerd",
    "read_letor",
    "read_mind",
    "read_qrels",
    "read_recbole",
    "read_trec",
]


def join_splits(**parts: pl.DataFrame) -> pl.DataFrame:
    """Join the tables of several splits, as in `join_splits(train=..., valid=..., test=...)`.

    A column that a table lacks is missing in its rows. Requests stay separate: an id that occurs
    in two tables gets the name of its split as a prefix.

    Raises:
      ValueError: a name is not a split's.
    """
    for name in parts:
        if name not in SPLITS:
            raise ValueError(unknown("split", name, SPLITS))
    marked = {name: part.with_columns(split=pl.lit(name)) for name, part in parts.items()}
    joined = pl.concat(marked.values(), how="diagonal_relaxed")
    owners = joined.group_by("request_id").agg(pl.col("split").n_unique())["split"]
    if owners.max() == 1:
        return joined
    return joined.with_columns(request_id=pl.format("{}-{}", "split", "request_id"))
