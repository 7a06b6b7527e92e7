"""Make `tests/` importable, compile fast (programs run once, on tiny arrays), use both cores."""

import os
import sys
from pathlib import Path

import pytest

# Before JAX starts; subprocesses inherit them.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_backend_optimization_level=0",
        "--xla_cpu_parallel_codegen_split_count=1",  # both cores are busy with tests already
    ]
).strip()

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Drop compiled programs after each file: a process holds only so many before XLA crashes."""
    import jax  # after the flags above are set

    yield
    jax.clear_caches()
