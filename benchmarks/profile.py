"""Profile a train step on this device, by part of the model.

    python -m benchmarks.profile                             plain PRM, batch 512, float32
    python -m benchmarks.profile --work 2 --dtype bfloat16   DNR phase 2

The step is that of `benchmarks.throughput`, watched by JAX's profiler as it runs in training. The
parts are the names that the compiler keeps; an operation made of several counts for its last one.
`busy` is the share of the time in which the device works at all: the rest is waiting between
operations. `--keep FOLDER` keeps the trace for XProf or Perfetto. On a GPU the operations inside a
CUDA graph have no names: set XLA_FLAGS=--xla_gpu_enable_command_buffer= to see them.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks import harness, standard_case, throughput
from dnr_jax.training.epoch import seed_axis

OUTSIDE = "losses, noise, optimiser"


class Event(NamedTuple):
    """An operation that ran: its name in the program, when it began and ended (ns)."""

    operation: str
    start: float
    end: float


def main(options: argparse.Namespace) -> None:
    """Run a few steps under the profiler and print where their time went."""
    steps, sizes = (2, standard_case.TINY) if options.smoke else (8, {})
    work = standard_case.WORKS[options.work]
    batch = standard_case.make_batch(8 if options.smoke else options.batch_size)
    game = standard_case.make_game(work, options.dtype, **sizes)
    epoch, *arguments = throughput.make_program(game, work, batch, [0], steps, seed_axis())
    program = epoch.lower(*arguments).compile()
    names = operation_names(program.as_text())
    with tempfile.TemporaryDirectory() as folder:
        threads = run(program, arguments, Path(options.keep or folder), names)
    rows = by_part(threads, names, steps)
    harness.report(f"a train step of {work}, {options.dtype}", rows, options.json)
    print(f"\nbusy {100 * busy(threads):.0f} % of the time")


def run(
    program: Any, arguments: list[Any], folder: Path, names: dict[str, str]
) -> list[list[Event]]:
    """Call the program once to warm up and once under the profiler."""
    states, *rest = arguments
    states, _ = jax.block_until_ready(program(states, *rest))
    with jax.profiler.trace(str(folder)):
        jax.block_until_ready(program(states, *rest))
    (trace,) = folder.rglob("*.xplane.pb")
    return list(_threads(jax.profiler.ProfileData.from_file(str(trace)), names))


def _threads(profile: Any, names: dict[str, str]) -> Iterator[list[Event]]:
    """Yield the program's operations that each thread or stream ran, in order of time."""
    for line in (line for plane in profile.planes for line in plane.lines):
        events = [
            Event(str(dict(e.stats).get("hlo_op", e.name)), e.start_ns, e.end_ns)
            for e in line.events
        ]
        if known := [event for event in events if event.operation in names]:
            yield sorted(known, key=lambda event: (event.start, -event.end))


def operation_names(hlo: str) -> dict[str, str]:
    """Map each operation of a compiled program to JAX's name for its computation."""
    found = re.finditer(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$", hlo, re.MULTILINE)
    names = ((match[1], re.search(r'op_name="([^"]*)"', match[2])) for match in found)
    return {operation: name[1] if name else "" for operation, name in names}


def part_of(name: str) -> tuple[str, str]:
    """Return the part of the model, and "forward" or "backward", that a name belongs to."""
    inside = re.search(r"(transpose\()?jvp\((?:[A-Z]\w*)(?:\.\w+)?\)+/(.*)/", name.split(";")[0])
    if inside is None:
        return OUTSIDE, ""
    path = [re.sub(r"_\d+$", "", step) for step in inside[2].split("/") if "(" not in step]
    place = " > ".join(dict.fromkeys((path or ["the rest of a model"])[:: max(1, len(path) - 1)]))
    return place, "backward" if inside[1] else "forward"


def own_seconds(events: Iterable[Event]) -> Iterator[tuple[str, float]]:
    """Yield each operation's seconds without those of the operations inside it."""
    open_events: list[list[Any]] = []  # those around the current one: [event, ns of its children]
    for event in [*events, Event("", float("inf"), float("inf"))]:
        while open_events and open_events[-1][0].end <= event.start:
            done, inside = open_events.pop()
            yield done.operation, (done.end - done.start - inside) / 1e9
            if open_events:
                open_events[-1][1] += done.end - done.start
        open_events.append([event, 0.0])


def by_part(threads: list[list[Event]], names: dict[str, str], steps: int) -> list[dict[str, Any]]:
    """Sum the time by part, the longest first."""
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for operation, taken in (pair for thread in threads for pair in own_seconds(thread)):
        seconds[part_of(names[operation])] += taken
        counts[part_of(names[operation])] += 1
    total = sum(seconds.values())
    return [
        {
            "part": place,
            "pass": way,
            "ms/step": 1e3 * taken / steps,
            "% of all": 100 * taken / total,
            "operations": counts[place, way] / steps,
        }
        for (place, way), taken in sorted(seconds.items(), key=lambda pair: -pair[1])
    ]


def busy(threads: list[list[Event]]) -> float:
    """Return the share of the time, first start to last end, in which any thread works."""
    spans = sorted((e.start, e.end) for events in threads for e in events)
    worked, until = 0.0, spans[0][0]
    for start, end in spans:
        worked += max(0.0, end - max(start, until))
        until = max(until, end)
    return worked / (until - spans[0][0])


def parser() -> argparse.ArgumentParser:
    made = harness.parser(__doc__ or "")
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    works = standard_case.WORKS
    each = ", ".join(f"{number} = {work}" for number, work in enumerate(works))
    made.add_argument("--work", type=int, choices=range(len(works)), default=0, help=each)
    made.add_argument("--batch-size", type=int, default=512, help="default: 512")
    made.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    made.add_argument("--keep", type=Path, help="folder for the trace itself")
    return made


if __name__ == "__main__":
    main(parser().parse_args())
