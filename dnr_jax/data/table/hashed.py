"""Columns of ids without a fixed vocabulary: each value is hashed to two rows of one table.

The embedding of a value is the sum of its two rows, so values that share one row still differ: the
Bloom embeddings of Serra and Karatzoglou (RecSys 2017, arXiv 1706.03993) with two hashes. A column
becomes two columns of the same name, like a list of two ids. Values not seen in training have rows
too, which are only as good as what these rows learned from other values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from dnr_jax.data.encoders import Vocabulary
from dnr_jax.data.raw_values import mixed, texts_hashed, two_rows
from dnr_jax.data.table.columns import Typed, type_of
from dnr_jax.data.table.reader import collect
from dnr_jax.data.table.schema import Feature


def vocabulary(table: Typed, feature: Feature) -> Vocabulary:
    """Make the vocabulary of a hashed column: empty keys of the values' kind."""
    kind = table.frame.select(feature.name).collect_schema()[feature.name]
    text = getattr(kind, "inner", kind) == pl.String
    return Vocabulary(np.zeros(0, np.str_ if text else np.int64), feature.buckets)


def code(frame: pl.LazyFrame, feature: Feature, words: Vocabulary) -> pl.LazyFrame:
    """Replace a column by lists of feature ids: two per value, or unknown if there is none."""

    def coded(values: pl.Series) -> pl.Series:
        if feature.kind == "id":
            return _listed(_rows(values, words), np.full(len(values), 2))
        sizes = values.list.len().fill_null(0).to_numpy().astype(np.int64)
        flat = values.filter(pl.Series(sizes > 0)).explode()
        return _listed(_rows(flat, words), 2 * sizes)

    kind = type_of(words)
    typed = pl.col(feature.name).cast(
        pl.List(kind) if feature.kind == "bag" else kind, strict=False
    )
    made = typed.map_batches(coded, return_dtype=pl.List(pl.Int32), is_elementwise=True)
    return frame.with_columns(made)


def collisions(table: Typed) -> dict[str, Any]:
    """Count the values of each hashed column, and those that share both rows with another."""
    found = {}
    for feature in table.schema.features:
        if feature.buckets:
            column = pl.col(feature.name)
            own = column.explode() if feature.kind == "bag" else column
            values = collect(table.frame.select(own.unique()).drop_nulls(), table.source.files)
            rows = _rows(values[feature.name], vocabulary(table, feature))
            found[feature.name] = {
                "rows": feature.buckets,
                "values": len(rows),
                "share_both": _shared(rows),
            }
    return found


def _shared(rows: np.ndarray) -> int:
    """Count the pairs `int32 [n, 2]`, in any order, that occur more than once."""
    _, counts = np.unique(np.sort(rows, axis=1), axis=0, return_counts=True)
    return int(counts[counts > 1].sum())


def _rows(values: pl.Series, words: Vocabulary) -> np.ndarray:
    """Return the two ids of each value: `int32 [n, 2]`."""
    known = values.is_not_null().to_numpy()
    if words.keys.dtype.kind == "U":
        return two_rows(_text_hashes(values), known, words.buckets)
    raw = values.fill_null(0).cast(pl.Int64).to_numpy()
    return two_rows(mixed(raw.astype(np.uint64)), known, words.buckets)


def _text_hashes(values: pl.Series) -> np.ndarray:
    """Hash texts, each distinct text only once."""
    own = values.unique()
    hashes, _ = texts_hashed(own.to_list())
    table = pl.DataFrame({"text": own, "hash": pl.Series(hashes, dtype=pl.UInt64)})
    frame = values.alias("text").to_frame()
    joined = frame.join(table, on="text", how="left", nulls_equal=True, maintain_order="left")
    return joined["hash"].to_numpy()


def _listed(ids: np.ndarray, sizes: np.ndarray) -> pl.Series:
    """Cut ids, `int32 [n, 2]` in order, into lists."""
    ends = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int64())
    lists = pa.LargeListArray.from_arrays(ends, pa.array(ids.reshape(-1), pa.int32()))
    return pl.Series(pl.from_arrow(lists))
