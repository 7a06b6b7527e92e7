"""Regroup an engine's Arrow batches into tables of whole requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc


def whole_requests(
    batches: Iterable[pa.RecordBatch], column: str = "request_id"
) -> Iterator[pa.Table]:
    """Join batches and cut them where a request ends.

    One batch is in memory, and the rows of a request that continues in the next batch.

    Args:
      batches: batches of one schema, with the rows of each request adjacent.
      column: the column that names the request.

    Yields:
      tables that hold all rows in their order; none is empty, and none shares a request with
      another.

    Raises:
      KeyError: there is no such column.
    """
    kept: pa.Table | None = None
    for batch in batches:
        if batch.num_rows == 0:
            continue
        new = pa.Table.from_batches([batch])
        table = new if kept is None else pa.concat_tables([kept, new])
        names = table[column]
        begin = pc.index(names, names[-1]).as_py()  # of the request that may continue
        if begin > 0:
            yield table.slice(0, begin)
        kept = table.slice(begin)
    if kept is not None:
        yield kept
