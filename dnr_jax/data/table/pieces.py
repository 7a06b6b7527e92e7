"""Read the rows of a table in order, some at a time, decoding each only once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dnr_jax.data.table.reader import FORMATS, ROW, Source, collect, unreadable

ROWS = 2**13  # decoded together: the lists of ids of this many rows fit a processor's cache


def read(
    source: Source,
    names: Sequence[str],
    spans: Sequence[tuple[int, int]],
    request: str,
    lists: Sequence[str],
) -> Iterator[pl.DataFrame]:
    """Read some rows at a time: `names` and `ROW`.

    A list that a request repeats in all of its rows is kept only in the first of adjacent rows,
    because lists are slow to copy.

    Args:
      source: the table. Parquet files are decoded piece by piece; other files are read again for
        each span.
      names: column names.
      spans: first row and number of rows, ascending, of whole requests.
      request: the column that names the request.
      lists: the columns that a request repeats.

    Raises:
      ValueError: the files cannot be read.
    """
    if not _is_parquet(source, names):
        frame = source.frame.select(ROW, *names)
        yield from (collect(frame.slice(*span), source.files) for span in spans)
        return
    types = {name: source.types[name] for name in names}
    pieces = (_once(piece, request, lists) for piece in _stream(source.files, names))
    for (first, rows), table in zip(spans, _cut(pieces, spans), strict=True):
        held = pl.DataFrame(pl.from_arrow(table, rechunk=False)).cast(types)  # type: ignore[arg-type]
        yield held.with_columns(pl.int_range(first, first + rows, dtype=pl.UInt32).alias(ROW))


def _cut(pieces: Iterator[pa.RecordBatch], spans: Sequence[tuple[int, int]]) -> Iterator[pa.Table]:
    piece, begin = next(pieces), 0
    for first, rows in spans:
        end, own = first + rows, []
        while True:
            own.append(piece[max(0, first - begin) : max(0, end - begin)])
            if begin + len(piece) >= end:
                break
            begin += len(piece)
            piece = next(pieces)
        yield pa.Table.from_batches(own)


def _is_parquet(source: Source, names: Sequence[str]) -> bool:
    """Tell whether Parquet files hold all the columns; those from folder names are not in files."""
    if not source.files or not source.files[0].name.lower().endswith(FORMATS["Parquet"]):
        return False
    return set(names) <= set(pq.read_schema(source.files[0]).names)


def _stream(files: Sequence[Path], names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    like = _plain(pq.read_schema(files[0]), names)
    for file in files:
        try:
            whole = pq.ParquetFile(file, memory_map=True)
            for piece in whole.iter_batches(ROWS, columns=list(names), use_threads=False):
                alike = piece.schema.equals(like)
                yield piece if alike else piece.select(list(names)).cast(like)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(files, error) from error


def _plain(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """Describe some columns, ignoring order and dictionaries, which may differ between files."""
    kinds = {name: schema.field(name).type for name in names}
    return pa.schema(
        {n: k.value_type if pa.types.is_dictionary(k) else k for n, k in kinds.items()}
    )


def _once(piece: pa.RecordBatch, request: str, lists: Sequence[str]) -> pa.RecordBatch:
    """Leave a list out of a row if the previous row is of the same request and has one."""
    asked = piece[request]
    same = pc.equal(asked[1:], asked[:-1]).to_numpy(zero_copy_only=False)
    for name in lists:
        there = piece[name].is_valid().to_numpy(zero_copy_only=False)
        again = np.concatenate([[False], same & there[:-1]])
        kept = piece[name].take(pa.array(np.arange(len(piece)), mask=again))
        piece = piece.set_column(piece.schema.get_field_index(name), name, kept)
    return piece
