"""Shared by all benchmarks: flags, timing and printing of results."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax

from dnr_jax.io import environment

Name = TypeVar("Name", bound=Hashable)  # names a call among those timed together


class Timing(NamedTuple):
    """Seconds per call, over repeated calls after the warm-up."""

    best: float
    median: float
    worst: float


def parser(description: str) -> argparse.ArgumentParser:
    """Make a parser with the two flags that all benchmarks have."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    made.add_argument("--json", type=Path, help="also write rows and environment to this file")
    return made


def time_calls(call: Callable[[], Any], *, repeats: int, warmup: int = 1) -> Timing:
    """Time `call`, waiting for the device each time."""
    for _ in range(warmup):
        jax.block_until_ready(call())
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - began)
    return Timing(min(seconds), statistics.median(seconds), max(seconds))


def seconds_in_turn(
    calls: Mapping[Name, Callable[[], Any]], *, repeats: int, warmup: int = 1
) -> dict[Name, list[float]]:
    """Time several calls in turn, A B A B ..., so machine drift does not distort ratios."""
    seconds: dict[Name, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def time_in_turn(calls: Mapping[Name, Callable[[], Any]], *, repeats: int) -> dict[Name, Timing]:
    """Summarise `seconds_in_turn`."""
    found = seconds_in_turn(calls, repeats=repeats)
    return {n: Timing(min(s), statistics.median(s), max(s)) for n, s in found.items()}


def report(title: str, rows: Sequence[dict[str, Any]], path: Path | None) -> None:
    """Print rows (same keys in each) as a Markdown table under the machine; write JSON too."""
    about = environment.describe()
    versions = ", ".join(f"{name} {v}" for name, v in about["packages"].items() if v)
    print(f"# {title}\n")
    print(f"{about['cpu']}, {about['cpu_count']} cores, {about['memory_gib']} GiB; ", end="")
    print(f"{about['backend']} backend, {len(about['devices'])} x {about['devices'][0]}")
    print(f"{versions}; Python {about['python']}\n")
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "|".join("---" for _ in rows[0]) + "|")
    for row in rows:
        print("| " + " | ".join(_cell(value) for value in row.values()) + " |")
    if path is not None:
        content = {"title": title, "environment": about, "rows": list(rows)}
        path.write_text(json.dumps(content, indent=1) + "\n")


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
