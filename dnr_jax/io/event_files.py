"""Training records as TensorBoard event files, `tensorboard/ROW/seed-S/`, for viewing only.

They are rebuilt from `metrics.jsonl` whenever a run folder is opened, and then extended with it.
Nothing reads them back, so they may be deleted at any time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dnr_jax import durable

FOLDER = "tensorboard"
_PACKAGE = "tensorboardX"
_RATE = "learning_rate_factor"
_ABOUT = ("seed", "epoch", _RATE)  # numbers of a record that are not curves


def require() -> None:
    """Raise an error if the package that writes event files is not installed.

    Raises:
      ValueError: it is not installed.
    """
    if find_spec(_PACKAGE) is None:
        raise ValueError(
            f"--tensorboard needs the package {_PACKAGE}: pip install 'dnr_jax[tensorboard]'"
        )


class EventFiles:
    """The event files of a run folder, one for each training: a row, a seed, a learning rate."""

    def __init__(self, run: Path):
        self.path = run / FOLDER
        self._writers: dict[str, Any] = {}  # by training, open

    def rewrite(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Replace all files by the events of `records`, the lines of `metrics.jsonl`."""
        self.close()
        durable.remove(self.path)
        self.add(records)

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add the events of more records; they are on disk for TensorBoard when this returns."""
        with durable.naming(self.path):
            for record in records:
                self._writer(_training(record)).write_event(_event(record))
            for writer in self._writers.values():
                writer.flush()

    def close(self) -> None:
        """Close all open files; a later `add` would begin new ones."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, training: str) -> Any:
        if training not in self._writers:
            # A writer without its own thread: at a kill, nothing is left unwritten.
            from tensorboardX.event_file_writer import EventsWriter

            folder = self.path / training
            folder.mkdir(parents=True, exist_ok=True)
            self._writers[training] = EventsWriter(str(folder / "events"))
        return self._writers[training]


def _training(record: Mapping[str, Any]) -> str:
    """Name a training as TensorBoard's run: learning-rate trials of a row are separate runs."""
    rate = record.get(_RATE, 1.0)
    return f"{record['row']}/seed-{record.get('seed', 0)}" + (
        f"-rate-{rate:g}" if rate != 1 else ""
    )


def _event(record: Mapping[str, Any]) -> Any:
    """Make an event from a record's numbers; stages before the last have their own curves."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    stage = f"{record['stage']}/" if "stage" in record else ""
    numbers = {n: v for n, v in record.items() if isinstance(v, int | float) and n not in _ABOUT}
    values = [Summary.Value(tag=stage + name, simple_value=v) for name, v in numbers.items()]
    return Event(wall_time=time.time(), step=record["epoch"], summary=Summary(value=values))
