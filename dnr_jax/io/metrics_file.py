"""Training records, `metrics.jsonl`, with a hash of each row's records for later checks."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnr_jax import json_files
from dnr_jax.io.event_files import EventFiles

METRICS = "metrics.jsonl"
KEYS = ("row", "epoch")  # in every record
_LOG = logging.getLogger(__name__)


class MetricsFile:
    """The records of a run folder, to which one process at a time may write."""

    def __init__(self, folder: Path, events: EventFiles | None = None):
        self.path = folder / METRICS
        self._events = events
        self._hashes: dict[str, Any] = {}  # hashlib objects, by row

    def append(self, *records: Mapping[str, Any]) -> None:
        """Append records, each with all `KEYS`; they are on disk when this returns."""
        hashes = [self._hash(str(record["row"])) for record in records]
        json_files.append_lines(self.path, records)
        for own, record in zip(hashes, records, strict=True):
            own.update(json_files.line(record))
        if self._events is not None:
            self._events.add(records)

    def show(self) -> None:
        """Make the event files, if wanted, from the records."""
        if self._events is not None:
            self._events.rewrite(json_files.read_lines(self.path, keys=KEYS))

    def close(self) -> None:
        """Close the event files."""
        if self._events is not None:
            self._events.close()

    def rewind(self, row: str, epoch: int, digest: str | None) -> None:
        """Drop the records of `row` after `epoch`; warn if the hash of the rest is not `digest`."""
        records = json_files.read_lines(self.path, keys=KEYS)
        kept = [r for r in records if r["row"] != row or r["epoch"] <= epoch]
        if len(kept) < len(records):
            json_files.write_lines(self.path, kept)
            self.show()
        self._hashes.pop(row, None)
        if digest not in (None, self.digest(row)):
            _LOG.warning(
                "%s does not hold what row %s recorded up to epoch %d: its training curves are "
                "wrong, no other result is",
                *(self.path, row, epoch),
            )

    def digest(self, row: str) -> str:
        """Hash all records of a row, in their order."""
        return str(self._hash(row).hexdigest())

    def _hash(self, row: str) -> Any:
        if row not in self._hashes:
            records = json_files.read_lines(self.path, keys=KEYS)
            own = (json_files.line(record) for record in records if record["row"] == row)
            self._hashes[row] = hashlib.sha256(b"".join(own))
        return self._hashes[row]
