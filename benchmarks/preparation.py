"""Prepare large data sets: rows per second, peak memory, and how both grow with the rows.

    python -m benchmarks.preparation                                  1, 3, 10 and 30 million rows
    python -m benchmarks.preparation --rows 1000000 3000000 --case recflow

Files of RecFlow's schema and of interactions (CSV) are written once each, and read by a separate
process, as a run reads them: RecFlow to prepared arrays, interactions to events of a 5-core, where
a retriever comes next. RecFlow's days are tiled from one simulated day with new request, user and
video numbers, and a day has at most two million rows. Memory is the process's peak beyond its
starting value, relative to the bytes of the columns read, in the types of the files. The last
column is the exponent p of a fit seconds ~ rows^p so far. On a machine that is busy with other
work, rows per second of the process's own CPU time say more.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from benchmarks import harness
from benchmarks.log_table import MIB, against_columns, apart, most_bytes
from dnr_jax.data import interaction_files, recflow
from dnr_jax.data.interaction_files.settings import InteractionSettings
from dnr_jax.data.recflow import files, simulator
from dnr_jax.data.recflow.settings import RecFlowSettings, RecFlowSimulation
from dnr_jax.data.settings import Shape
from dnr_jax.data.store import Writer

ROWS, SMOKE_ROWS = (1_000_000, 3_000_000, 10_000_000, 30_000_000), (20_000,)
LAST_DAY = 18  # of February 2024
FEWEST_DAYS, DAY_ROWS = 4, 2_000_000
OFFSETS = ("request_id", "user_id", "device_id")  # ids that differ in each tile
MOST_USERS = 400  # of the simulated day
VIDEOS_SHARED = 4  # tiles that show the same videos


def write_recflow(folder: Path, rows: int) -> int:
    """Write about `rows` rows of RecFlow's schema; returns the bytes of the read columns."""
    source = folder.parent / "source"
    if not source.exists():
        users = min(MOST_USERS, max(40, rows // 1000))
        simulator.simulate(source, RecFlowSimulation(users=users, videos=1500, days=3))
    day = sorted((source / files.ROWS_FOLDER).iterdir())[-1]
    frame = pl.read_ipc(day)
    past = pickle.loads((source / files.HISTORY_FOLDERS[0] / f"{day.stem}.pkl").read_bytes())
    days = min(max(FEWEST_DAYS, -(-rows // DAY_ROWS)), 15 + LAST_DAY)
    tiles = max(1, round(rows / days / len(frame)))
    for name in (files.ROWS_FOLDER, files.HISTORY_FOLDERS[0]):
        (folder / name).mkdir(parents=True)
    for number in range(days):
        _write_day(folder, frame, past, number - days + 1, tiles)
    return days * tiles * frame.select(files.COLUMNS).estimated_size()


def _write_day(
    folder: Path, frame: pl.DataFrame, past: dict[int, np.ndarray], back: int, tiles: int
) -> None:
    """Write the day `back` days after the last one (<= 0), as tiles of a simulated day."""
    step = {name: int(frame[name].max()) + 1 for name in OFFSETS}  # type: ignore[arg-type]
    videos, shift = int(frame["video_id"].max()) + 1, back * 86_400_000  # type: ignore[arg-type]
    first = -back * tiles * step["request_id"]
    parts, histories = [], {}
    for tile in range(tiles):
        ids = first + tile * step["request_id"]
        parts.append(
            frame.with_columns(
                pl.col("request_id") + ids,
                pl.col("user_id") + tile * step["user_id"],
                pl.col("device_id") + tile * step["device_id"],
                pl.col("video_id") + tile // VIDEOS_SHARED * videos,
                pl.col("request_timestamp") + shift,
                pl.col("upload_timestamp") + shift // 1000,
            )
        )
        histories |= {request + ids: events for request, events in past.items()}
    name = str(np.datetime64(f"2024-02-{LAST_DAY}") + back)
    pl.concat(parts).write_ipc(folder / files.ROWS_FOLDER / f"{name}.feather", compression="lz4")
    with open(folder / files.HISTORY_FOLDERS[0] / f"{name}.pkl", "wb") as file:
        pickle.dump(histories, file, protocol=4)


def read_recflow(folder: Path) -> None:
    """Prepare the arrays of a run."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        writer = Writer(Path(scratch) / "arrays")
        recflow.build(writer, folder, RecFlowSettings(), Shape(50, 6), seed=0, progress=False)


def write_interactions(folder: Path, rows: int) -> int:
    """Write `ratings.csv` like MovieLens; return the bytes of its columns, 8 per value."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    users, items = max(rows // 100, 10), max(rows // 500, 50)
    order = np.sort(draw.integers(0, users, rows))
    frame = pl.DataFrame(
        {
            "userId": order,
            "movieId": (items * draw.random(rows) ** 2).astype(np.int64),
            "rating": draw.integers(1, 11, rows) / 2,
            "timestamp": 1_100_000_000 + draw.integers(0, 10**8, rows),
        }
    )
    frame.write_csv(folder / "ratings.csv")
    return int(frame.estimated_size())


def read_interactions(folder: Path) -> None:
    """Read the events of a 5-core."""
    interaction_files.read(folder, InteractionSettings(core=5))


class Case(NamedTuple):
    """A measured case: how files of a given number of rows are made and read."""

    write: Callable[[Path, int], int]
    read: Callable[[Path], None]


CASES = {
    "recflow": Case(write_recflow, read_recflow),
    "interactions": Case(write_interactions, read_interactions),
}


def read_here(case: str, folder: Path) -> dict[str, float]:
    """Read files in this process: seconds, those of all its cores, and MiB beyond the start."""
    before, started, worked = most_bytes(), time.perf_counter(), time.process_time()
    CASES[case].read(folder)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - worked,
        "peak_mib": (most_bytes() - before) / MIB,
    }


def measure(case: str, rows: int, scratch: Path) -> dict[str, Any]:
    """Write files, and read them in a fresh process."""
    folder = scratch / f"{case}-{rows}"
    size = CASES[case].write(folder, rows)
    found = apart("benchmarks.preparation", "--read", case, folder)
    row = {"case": case} | against_columns(found, rows, size)
    return row | {"rows/CPU s": rows / found["cpu_seconds"]}


def growth(rows: list[dict[str, Any]]) -> float:
    """Fit the exponent of seconds in rows, by least squares on logarithms."""
    logs = np.log([[row["rows"], row["seconds"]] for row in rows])
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def main(arguments: argparse.Namespace) -> None:
    """Measure the cases over the rows and print a table, its last column the growth so far."""
    rows, found = SMOKE_ROWS if arguments.smoke else arguments.rows, []
    for case in arguments.case:
        own: list[dict[str, Any]] = []
        for count in rows:
            with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
                own.append(measure(case, count, Path(scratch)))
            own[-1]["growth power"] = growth(own) if len(own) > 1 else ""
        found += own
    harness.report("Preparing large data sets", found, arguments.json)


def parser() -> argparse.ArgumentParser:
    """Make the parser of the benchmark's flags."""
    made = harness.parser(__doc__ or "")
    made.add_argument("--rows", type=int, nargs="+", default=list(ROWS), help="numbers of rows")
    made.add_argument("--case", nargs="+", default=list(CASES), choices=CASES, help="data sets")
    made.add_argument("--scratch", type=Path, help="folder for the files, 5 GB; else the system's")
    return made


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        print(json.dumps(read_here(sys.argv[2], Path(sys.argv[3]))))
    else:
        main(parser().parse_args())
