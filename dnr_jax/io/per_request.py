"""Metrics of single requests in a parquet file: one row per model, seed and request."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dnr_jax import durable
from dnr_jax.json_files import DamagedError


def write(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Replace a file of per-request values in one step.

    Args:
      path: the file.
      columns: equally long arrays by name: `model` str, `seed` int32, `request_id` int64, metrics
        float32 with NaN where a request is excluded.

    Raises:
      ValueError: the columns differ in length.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of {path.name} differ in length: {lengths}")
    table = pa.table({name: pa.array(column) for name, column in columns.items()})
    with durable.replacing(path) as file:
        pq.write_table(table, file)


def read(path: Path, *, cure: str) -> dict[str, np.ndarray]:
    """Read all columns of a file, as `write` took them.

    Args:
      path: the file.
      cure: what the error message tells the user to do about it.

    Raises:
      FileNotFoundError: there is no such file.
      DamagedError: it is not a file, or not a complete parquet file.
    """
    if path.is_dir():
        raise DamagedError(f"{path} is {durable.FOLDER}: move it away")
    try:
        table = pq.read_table(io.BytesIO(path.read_bytes()))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise DamagedError(f"{path} is damaged ({error}): {cure}") from None
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
