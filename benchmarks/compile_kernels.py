"""Compile the Pallas kernels by the real TPU and CUDA compilers, without either chip.

An optional check: lowering, which the tests do, does not run Mosaic, libtpu or ptxas. It needs

    pip install --no-deps --target TPU libtpu==0.0.42.*
    pip install --no-deps --target CUDA jax-cuda12-plugin==VERSION jax-cuda12-pjrt==VERSION \
        nvidia-cuda-nvcc-cu12
    python -m benchmarks.compile_kernels --tpu TPU --cuda CUDA

with VERSION that of jax; about 700 and 600 MB. `--smoke` only lowers, and needs nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SIZE = 25_600  # samples on either side: 512 requests of 50 candidates
TPU_TOPOLOGIES = {"TPU v4": "v4:2x2x1", "TPU v5e": "v5e:2x2", "TPU v6e": "v6e:2x2"}
# What XLA asks of a device; the kernels themselves only need the compute capability.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98 l2_cache_size: 52428800
  memory_bandwidth: 3352320000000 device_memory_size: 84942979072
  cuda_compute_capability { major: 9 minor: 0 }
}
platform_name: "CUDA"
"""


def main(arguments: argparse.Namespace) -> None:
    """Compile, or only lower, every program for every target, and print."""
    if not (arguments.smoke or arguments.tpu or arguments.cuda):
        raise SystemExit("no compiler given: name folders by --tpu and --cuda, or --smoke")
    rows = list(_lowered() if arguments.smoke else _compiled(arguments))

    from benchmarks import harness

    harness.report("Pallas kernels, compiled but not run", rows, arguments.json)


def _find_compilers(arguments: argparse.Namespace, dump: Path) -> None:
    """Tell JAX, before it starts, where the compilers are."""
    os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    os.environ |= {"MOSAIC_GPU_DUMP_TO": str(dump), "MOSAIC_GPU_DUMP_PTXAS": "1"}
    if arguments.tpu is not None:
        os.environ["TPU_LIBRARY_PATH"] = str(arguments.tpu.resolve() / "libtpu" / "libtpu.so")
    if arguments.cuda is not None:
        folder = arguments.cuda.resolve()
        sys.path.append(str(folder))
        os.environ["PATH"] = f"{folder / 'nvidia/cuda_nvcc/bin'}:{os.environ['PATH']}"


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
    _find_compilers(arguments, dump)

    import jax
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    targets: dict[str, tuple[str, dict[str, str]]] = {}
    if arguments.tpu is not None:
        targets |= {n: ("tpu", {"topology_name": t}) for n, t in TPU_TOPOLOGIES.items()}
    if arguments.cuda is not None:
        import jax_plugins.xla_cuda12  # noqa: F401  (registers the CUDA compiler)

        options = {"topology_name": "h100", "target_config": H100, "topology": "1x1x1"}
        targets["CUDA sm_90"] = ("cuda", options)
    for target, (platform, options) in targets.items():
        topology = topologies.get_topology_desc(platform=platform, **options)
        sharding = SingleDeviceSharding(topology.devices[0])
        for name, program in _programs().items():
            traced = jax.jit(program).trace(*_shapes(name, sharding))
            lowered = traced.lower(lowering_platforms=(platform,))
            began = time.perf_counter()
            memory = lowered.compile().memory_analysis()
            yield {
                "target": target,
                "program": name,
                "seconds": time.perf_counter() - began,
                "temporary MB": memory.temp_size_in_bytes / 1e6,
                "registers, spills": _ptxas(dump) if platform == "cuda" else "",
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


def parser() -> argparse.ArgumentParser:
    """Make the parser; not of `harness`, which starts JAX before the compilers are known."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--smoke", action="store_true", help="lower only: needs no compiler")
    made.add_argument("--json", type=Path, help="also write rows and environment to this file")
    made.add_argument("--tpu", type=Path, help="folder that libtpu was installed into")
    made.add_argument("--cuda", type=Path, help="folder of the CUDA plugin and ptxas")
    return made


if __name__ == "__main__":
    main(parser().parse_args())
