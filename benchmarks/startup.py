"""Time to a fresh process's first training step, with and without cached programs.

    python -m benchmarks.startup

A run of `dnr_jax.main` is started three times on one cache: `empty` also makes the data, `cold`
finds the data but no compiled program, `warm` finds both. Seconds count from the start of the
process: until Python has loaded JAX and the data (`row begins`), until the device begins the first
step, and until the whole run is done (one epoch per phase).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import harness

ROOT = Path(__file__).parents[1]
ROWS = ("score", "dnr_b")
# The standard case's model, on the small simulation.
STANDARD = {
    "width": 128,
    "layers": 2,
    "history_layers": 2,
    "heads": 4,
    "feed_forward": 128,
}
STATES = ("empty", "cold", "warm")
SMOKE = ("empty", "warm")


def measure(
    row: str, model: dict[str, int], cache: Path, states: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Start a run of one row in each state of its cache, in this order."""
    found = []
    for state in states:
        if state == "cold":
            shutil.rmtree(cache / "compiled")
        with tempfile.TemporaryDirectory() as workdir:
            found.append({"row": row, "cache": state, **run(row, model, cache, Path(workdir))})
    return found


def run(row: str, model: dict[str, int], cache: Path, workdir: Path) -> dict[str, Any]:
    """Run one row and note when its lines appear.

    Raises:
      RuntimeError: the run failed; its output is the message.
    """
    knobs = {"table": row, "cache": cache} | {f"reranker.{name}": n for name, n in model.items()}
    command = [sys.executable, "-m", "dnr_jax.main", "--config", "configs/recflow.py:smoke"]
    command += [f"--config.{name}={value}" for name, value in knobs.items()]
    own = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    began, seen, text = time.perf_counter(), {}, []
    with subprocess.Popen(
        [*command, "--workdir", str(workdir)],
        cwd=ROOT,
        env=own | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            text.append(line)
            for mark in ("row 1 of", "first step after"):
                if mark in line:
                    seen[mark] = time.perf_counter() - began
    seconds = time.perf_counter() - began
    if process.returncode != 0:
        raise RuntimeError("".join(text))
    return {
        "row begins s": seen["row 1 of"],
        "first step s": seen["first step after"],
        "run s": seconds,
        **programs(workdir),
        "compiled MiB": sum(p.stat().st_size for p in (cache / "compiled").iterdir()) / 2**20,
    }


def programs(workdir: Path) -> dict[str, Any]:
    """Read from a run folder how many programs its rows needed."""
    records = [json.loads(line) for line in (workdir / "timings.jsonl").read_text().splitlines()]
    counts = [record for record in records if "programs" in record]
    made, read = (sum(c[name] for c in counts) for name in ("programs", "programs_from_cache"))
    seconds = sum(count["compile_seconds"] for count in counts)
    return {"programs": made, "of these read": read, "compiling s": seconds}


def main(arguments: argparse.Namespace) -> None:
    """Measure all rows and print."""
    rows, model, states = (ROWS[:1], {}, SMOKE) if arguments.smoke else (ROWS, STANDARD, STATES)
    found = []
    for row in rows:
        with tempfile.TemporaryDirectory() as cache:
            found += measure(row, model, Path(cache), states)
    harness.report("Start of a run", found, arguments.json)


if __name__ == "__main__":
    main(harness.parser(__doc__).parse_args())
