"""Compile the train step by the real TPU and CUDA compilers, without either chip, and count in it.

    python -m benchmarks.compile_step --tpu TPU --cuda CUDA
    python -m benchmarks.compile_step --cuda CUDA --rerankers glorank hetcomp mge

An optional check; `benchmarks/compilers.py` says what to install into the two folders. `--smoke`
only lowers, and needs nothing.

The steps are those of `benchmarks.step_cases`, in an epoch program of four batches. `operations`
are those that the device is told to do in one update (a fusion is one), `GB` is what they read and
write: all operands and results, so too much where only a part of an operand is read, as of a large
table whose rows are gathered. Time on a device is about that over its bandwidth, caches aside.
Without a device the compiler cannot try which of its matrix products is fastest; what it then would
choose may differ.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks import compilers

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "c64": 8}
_ARRAY = re.compile(rf"\b({'|'.join(_BYTES)})\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_CALLED = re.compile(r"(?:body|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
# They only name, wait for or forward values; an asynchronous copy is counted where it starts.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}
_FREE |= {"copy-done", "slice-done", "async-done", "partition-id"}


class Cost(NamedTuple):
    """Operations, and bytes of their operands and results."""

    operations: int
    bytes: int


def main(arguments: argparse.Namespace) -> None:
    """Compile, or only lower, every case for every target, and print."""
    compilers.check(arguments)
    rows = list(_lowered(arguments.rerankers) if arguments.smoke else _compiled(arguments))

    from benchmarks import harness

    harness.report("train steps, compiled but not run", rows, arguments.json)


def cost(hlo: str) -> Cost:
    """Count the work of one iteration of a compiled program's longest loop body.

    Loops inside it count as often as the compiler says that they turn; of the branches of a
    conditional all count.
    """
    bodies = _computations(hlo)
    loops = re.findall(r" while\(.*?body=%?([\w.\-]+)", hlo)
    return max((_cost(name, bodies) for name in loops), default=Cost(0, 0))


def _computations(hlo: str) -> dict[str, list[tuple[str, str, str, str]]]:
    """Split a program into its computations, each a list of (name, type, operation, rest)."""
    found: dict[str, list[tuple[str, str, str, str]]] = {}
    for line in hlo.splitlines():
        if start := _COMPUTATION.match(line):
            here = found.setdefault(start[2], [])
        elif instruction := _INSTRUCTION.match(line):
            here.append(instruction.groups())  # type: ignore[arg-type]
    return found


def _cost(name: str, bodies: dict[str, list[tuple[str, str, str, str]]]) -> Cost:
    types = {name: kind for name, kind, _, _ in bodies[name]}
    operations = moved = 0
    for _, kind, operation, rest in bodies[name]:
        if operation in ("while", "call", "conditional"):
            turns = re.search(r'known_trip_count":\{"n":"(\d+)"', rest)
            inner = [_cost(body, bodies) for body in _called(rest)]
            operations += sum(i.operations for i in inner) * int(turns[1] if turns else 1)
            moved += sum(i.bytes for i in inner) * int(turns[1] if turns else 1)
        elif operation not in _FREE:
            operands = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
            operations += 1
            moved += _size(kind) + sum(_size(types.get(operand, "")) for operand in operands)
    return Cost(operations, moved)


def _called(rest: str) -> list[str]:
    branches = _BRANCHES.search(rest)
    names = branches[1].split(",") if branches else _CALLED.findall(rest)
    return [name.strip().lstrip("%") for name in names]


def _size(kind: str) -> int:
    """Return the bytes of an HLO type; for a tuple, the sum over its parts."""
    total = 0
    for dtype, shape in _ARRAY.findall(kind):
        count = 1
        for length in filter(None, shape.split(",")):
            count *= int(length)
        total += count * _BYTES[dtype]
    return total


def _lowered(names: list[str]) -> Iterator[dict[str, Any]]:
    from benchmarks import standard_case, step_cases

    for case in step_cases.chosen(names, step_cases.SMOKE_CASES):
        traced = step_cases.trace(case, None, **standard_case.TINY)
        for target in ("tpu", "cuda"):
            text = traced.lower(lowering_platforms=(target,)).as_text()
            yield {"target": target, **case.about(), "bytes of StableHLO": len(text)}


def _compiled(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from benchmarks import step_cases

    for target in compilers.targets(arguments, ("TPU v5e",)):
        options = {"xla_gpu_autotune_level": 0} if target.platform == "cuda" else {}
        for case in step_cases.chosen(arguments.rerankers, step_cases.CASES):
            traced = step_cases.trace(case, target.sharding)
            lowered = traced.lower(lowering_platforms=(target.platform,))
            yield {"target": target.name, **case.about(), **_compile(lowered, options)}


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    made = compilers.parser(__doc__ or "")
    words = "compile the stages of these instead, and their phase 2 of DNR"
    made.add_argument("--rerankers", nargs="+", default=[], metavar="NAME", help=words)
    return made


def _compile(lowered: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Compile and count; a refusal by the compiler is a result too, and goes into the row."""
    import jax

    began = time.perf_counter()
    try:
        program = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        return {"compile s": f"refused: {error}", "operations": "", "GB": "", "temporary GiB": ""}
    seconds, found = time.perf_counter() - began, cost(program.as_text())
    return {
        "compile s": seconds,
        "operations": found.operations,
        "GB": found.bytes / 1e9,
        "temporary GiB": program.memory_analysis().temp_size_in_bytes / 2**30,
    }


if __name__ == "__main__":
    main(parser().parse_args())
