"""Compile the Pallas kernels by the real TPU and CUDA compilers, without either chip.

    python -m benchmarks.compile_kernels --tpu TPU --cuda CUDA

An optional check; `benchmarks/compilers.py` says what to install into the two folders. `--smoke`
only lowers, and needs nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import compilers

SIZE = 25_600  # samples on either side: 512 requests of 50 candidates


def main(arguments: argparse.Namespace) -> None:
    """Compile, or only lower, every program for every target, and print."""
    compilers.check(arguments)
    rows = list(_lowered() if arguments.smoke else _compiled(arguments))

    from benchmarks import harness

    harness.report("Pallas kernels, compiled but not run", rows, arguments.json)


def _programs() -> dict[str, Any]:
    import jax

    from dnr_jax.divergences.pallas_sums import log_sums

    gradient = jax.grad(lambda a, b, c: log_sums(a, b, c).sum(), argnums=(0, 1, 2))
    several = jax.vmap(log_sums, (0, None, None))
    return {"forward": log_sums, "gradient": gradient, "forward, 5 seeds": several}


def _shapes(name: str, sharding: Any = None) -> list[Any]:
    import jax
    import jax.numpy as jnp

    sizes = [(5, SIZE) if "seeds" in name else (SIZE,), (SIZE,), (SIZE,)]
    return [jax.ShapeDtypeStruct(size, jnp.float32, sharding=sharding) for size in sizes]


def _lowered() -> Iterator[dict[str, Any]]:
    import jax

    for target in ("tpu", "cuda"):
        for name, program in _programs().items():
            began = time.perf_counter()
            traced = jax.jit(program).trace(*_shapes(name))
            text = traced.lower(lowering_platforms=(target,)).as_text()
            seconds = time.perf_counter() - began
            yield {"target": target, "program": name, "seconds": seconds, "bytes": len(text)}


def _compiled(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    dump = Path(tempfile.mkdtemp())
    os.environ |= {"MOSAIC_GPU_DUMP_TO": str(dump), "MOSAIC_GPU_DUMP_PTXAS": "1"}
    for target in compilers.targets(arguments, tuple(compilers.TPU_TOPOLOGIES)):
        import jax

        for name, program in _programs().items():
            traced = jax.jit(program).trace(*_shapes(name, target.sharding))
            lowered = traced.lower(lowering_platforms=(target.platform,))
            began = time.perf_counter()
            memory = lowered.compile().memory_analysis()
            yield {
                "target": target.name,
                "program": name,
                "seconds": time.perf_counter() - began,
                "temporary MB": memory.temp_size_in_bytes / 1e6,
                "registers, spills": _ptxas(dump) if target.platform == "cuda" else "",
            }


def _ptxas(dump: Path) -> str:
    """Read what ptxas said of the kernels compiled since the last look; nothing is a failure."""
    reports = sorted(dump.glob("*.ptxas"))
    if not reports:
        raise SystemExit("Mosaic GPU left no report of ptxas: the kernel was not compiled")
    text = "".join(report.read_text() for report in reports)
    for report in reports:
        report.unlink()
    registers = sorted({int(n) for n in re.findall(r"Used (\d+) registers", text)})
    spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill stores", text))
    return f"{'/'.join(map(str, registers))}, {spilled}"


if __name__ == "__main__":
    main(compilers.parser(__doc__ or "").parse_args())
