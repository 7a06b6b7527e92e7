"""The real TPU and CUDA compilers, without either chip: their locations and targets.

    pip install --no-deps --target TPU libtpu==0.0.42.*
    pip install --no-deps --target CUDA jax-cuda12-plugin==VERSION jax-cuda12-pjrt==VERSION \
        nvidia-cuda-nvcc-cu12

with VERSION that of jax; about 700 and 600 MB. Lowering, which the tests do, does not run Mosaic,
libtpu, XLA for the device, or ptxas.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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


class Target(NamedTuple):
    """A kind of device that programs are compiled for.

    Attributes:
      name: what tables call it.
      platform: "tpu" or "cuda", as `lower(lowering_platforms=...)` takes it.
      sharding: of the arguments, on one device of this kind.
    """

    name: str
    platform: str
    sharding: Any


def parser(description: str) -> argparse.ArgumentParser:
    """Make a parser; `harness` has one, but starts JAX before the compilers are known."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--smoke", action="store_true", help="lower only: needs no compiler")
    made.add_argument("--json", type=Path, help="also write rows and environment to this file")
    made.add_argument("--tpu", type=Path, help="folder that libtpu was installed into")
    made.add_argument("--cuda", type=Path, help="folder of the CUDA plugin and ptxas")
    return made


def check(arguments: argparse.Namespace) -> None:
    """Exit with advice unless a compiler is found or none is needed."""
    if not (arguments.smoke or arguments.tpu or arguments.cuda):
        raise SystemExit("no compiler given: name folders by --tpu and --cuda, or --smoke")


def targets(arguments: argparse.Namespace, tpus: tuple[str, ...]) -> Iterator[Target]:
    """Start JAX with the compilers named by `arguments`; yield `tpus` and an H100 as they allow."""
    _find(arguments)
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    wanted: dict[str, tuple[str, dict[str, str]]] = {}
    if arguments.tpu is not None:
        wanted |= {name: ("tpu", {"topology_name": TPU_TOPOLOGIES[name]}) for name in tpus}
    if arguments.cuda is not None:
        import jax_plugins.xla_cuda12  # noqa: F401  (registers the CUDA compiler)

        options = {"topology_name": "h100", "target_config": H100, "topology": "1x1x1"}
        wanted["CUDA sm_90"] = ("cuda", options)
    for name, (platform, options) in wanted.items():
        device = topologies.get_topology_desc(platform=platform, **options).devices[0]
        yield Target(name, platform, SingleDeviceSharding(device))


def _find(arguments: argparse.Namespace) -> None:
    """Tell JAX, before it starts, where the compilers are."""
    os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # there is no CUDA runtime to check
    if arguments.tpu is not None:
        os.environ["TPU_LIBRARY_PATH"] = str(arguments.tpu.resolve() / "libtpu" / "libtpu.so")
    if arguments.cuda is not None:
        folder = arguments.cuda.resolve()
        sys.path.append(str(folder))
        os.environ["PATH"] = f"{folder / 'nvidia/cuda_nvcc/bin'}:{os.environ['PATH']}"
