"""What there is to know of a log table before any training: its columns, its faults, its scores."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from dnr_jax.data import store, table
from dnr_jax.data.settings import Shape
from dnr_jax.data.store import Writer
from dnr_jax.data.table.settings import TableSettings
from dnr_jax.evaluation.audit import audit, render


class Checked(NamedTuple):
    """What was found in a table; both parts are JSON-able.

    Attributes:
      report: of the reader: columns as understood, counts, splits, `findings` and `warnings`.
      audit: leaks, and how far the first stage and trivial scorers get.
    """

    report: dict[str, Any]
    audit: dict[str, Any]

    def __str__(self) -> str:
        """Write everything as plain lines."""
        warned = [f"WARN  {text}" for text in self.report["warnings"]]
        counts = [
            f"{name}: {split['requests']} requests, {split['rows']} candidates, {split['judged']} "
            f"judged, {split['positives']} positive"
            for name, split in self.report["splits"].items()
        ]
        return "\n".join([*self.report["findings"], *counts, *warned, "", render(self.audit)])


def check_log(given: Any, settings: TableSettings, shape: Shape, *, seed: int = 0) -> Checked:
    """Read a table as for training, audit it, and keep nothing of it.

    Args:
      given: a path, or a frame of polars, pandas or pyarrow.
      settings: how it is read.
      shape: candidates N and shown places K; metrics are cut at K.
      seed: of splits by hash and of the order of candidates.

    Raises:
      FileNotFoundError, ValueError, TypeError: see `table.examine`.
    """

    def build(writer: Writer) -> None:
        table.build(writer, given, settings, shape, seed=seed, progress=False)

    with tempfile.TemporaryDirectory() as scratch:
        prepared = store.prepare(Path(scratch), {}, build)
        found = audit(prepared, k=shape.slate, protocol="logged")
    return Checked(prepared.report, found)
