"""Read a large log table: peak memory relative to the bytes of its columns, and rows per second.

    python -m benchmarks.log_table

A table of 10 million rows (200,000 requests of 50 candidates) is written once as Parquet and read
by a process of its own, which prepares the arrays of a run. What counts is the most memory that
this process held beyond what it held before it began to read, against the size of the columns in
memory (Arrow): the promise is at most 2.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks import harness
from dnr_jax.data import table
from dnr_jax.data.settings import Shape
from dnr_jax.data.store import Writer
from dnr_jax.data.table.settings import TableSettings

ROWS, SMOKE_ROWS, CANDIDATES = 10_000_000, 50_000, 50
USERS, ITEMS = 100_000, 500_000
PART = 1_000_000  # rows per file
MIB = 2**20
ROOT = Path(__file__).parents[1]


def write_table(folder: Path, rows: int) -> int:
    """Write a table in parts of `PART` rows; returns the bytes of its columns in memory."""
    folder.mkdir()
    size = 0
    for number, start in enumerate(range(0, rows, PART)):
        part = make_rows(start, min(PART, rows - start))
        part.write_parquet(folder / f"{number:04d}.parquet")
        size += int(part.estimated_size())
    return size


def make_rows(start: int, count: int) -> pl.DataFrame:
    """Draw rows `start` to `start + count`: ids as ints and text, a score, clicks, features."""
    rng = np.random.default_rng(start)
    row = np.arange(start, start + count)
    request = row // CANDIDATES
    item = (request * 7919 + (row % CANDIDATES) * 104_729) % ITEMS  # no item twice in a request
    user = request * 31 % USERS
    clicked = (rng.random(count) < 0.1).astype(np.float64)
    return pl.DataFrame(
        {
            "request_id": request,
            "user_id": user,
            "timestamp": 1_700_000_000 + request,
            "item_id": item,
            "score": rng.normal(size=count),
            "label": clicked,
            "u_city": pl.Series(user % 50).cast(pl.String),
            "i_brand": pl.Series(item % 1000).cast(pl.String),
            "i_price": rng.lognormal(size=count),
        }
    )


def read_table(folder: Path) -> dict[str, float]:
    """Prepare the arrays of a table in this process: seconds and MiB beyond the start."""
    before, started = most_bytes(), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        writer = Writer(Path(scratch) / "arrays")
        table.build(writer, folder, TableSettings(history=20), Shape(50, 6), seed=0, progress=False)
    return {
        "seconds": time.perf_counter() - started,
        "peak_mib": (most_bytes() - before) / MIB,
    }


def most_bytes() -> int:
    """Return this process's peak memory; Linux counts in KiB, macOS in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's `ru_maxrss` may be that of the process which started this one
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024  # type: ignore[index]
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def measure(rows: int, scratch: Path) -> dict[str, Any]:
    """Write a table, read it in a fresh process, and compare."""
    folder = scratch / "log"
    size = write_table(folder, rows)
    return against_columns(apart("benchmarks.log_table", "--read", folder), rows, size)


def apart(module: str, *arguments: Any) -> dict[str, float]:
    """Run a module in a fresh process, and return its last line of output, read as JSON."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def against_columns(found: dict[str, float], rows: int, size: int) -> dict[str, Any]:
    """Relate the seconds and peak memory of a reading to its rows and the bytes of its columns."""
    return {
        "rows": rows,
        "columns MiB": size / MIB,
        "peak MiB": found["peak_mib"],
        "peak over columns": found["peak_mib"] / (size / MIB),
        "seconds": found["seconds"],
        "rows/s": rows / found["seconds"],
    }


def main(arguments: argparse.Namespace) -> None:
    """Measure the table, or with `--smoke` a small one, and print a row."""
    rows = SMOKE_ROWS if arguments.smoke else ROWS
    with tempfile.TemporaryDirectory() as scratch:
        found = [measure(rows, Path(scratch))]
    harness.report("Reading a log table", found, arguments.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        print(json.dumps(read_table(Path(sys.argv[2]))))
    else:
        main(harness.parser(__doc__ or "").parse_args())
