"""Make `tests/` importable, and compile fast: the tests run programs once, on tiny arrays."""

import os
import sys
from pathlib import Path

# Before JAX starts; subprocesses inherit them.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_backend_optimization_level=0",
    ]
).strip()

sys.path.insert(0, str(Path(__file__).parent))
