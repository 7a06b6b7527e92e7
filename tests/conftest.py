"""Compile fast (programs run once, on tiny arrays), use both cores."""

import gc
import os
import sys

import pytest

from benchmarks import quick_compile
from dnr_jax import console

# Before JAX starts; subprocesses inherit them.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        quick_compile.FLAGS,
        "--xla_cpu_parallel_codegen_split_count=1",  # both cores are busy with tests already
    ]
).strip()
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

gc.set_threshold(*console.GARBAGE_THRESHOLDS)  # as programs do: a tenth of the time here


# They begin first: the last file of a run has one process alone.
LONGEST = {
    *("test_contract.py", "test_main.py", "test_scaling.py", "test_precision.py"),
    *("test_docs_site.py", "test_examples.py", "test_public_face.py", "test_sharding.py"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; each keeps its order."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled programs with pytest's own cache: the workers share them, and the next run."""
    if not config.pluginmanager.hasplugin("cacheprovider"):
        return
    own = str(config.cache.mkdir("programs"))
    folder = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", own)
    if jax := sys.modules.get("jax"):  # imported by the conftest of a folder that was asked for
        jax.config.update("jax_compilation_cache_dir", folder)


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Drop compiled programs after each file: a process holds only so many before XLA crashes."""
    import jax  # after the flags above are set

    yield
    jax.clear_caches()
