"""Compiled programs: kept on disk between runs, and counted while a run makes or reads them."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

_LOG = logging.getLogger(__name__)
_FOLDER = "jax_compilation_cache_dir"
# A run is a few large programs and some small ones: all of them are kept.
_SETTINGS = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
_COMPILED = "/jax/core/compile/backend_compile_duration"  # also when read from the cache
_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
_HIT = "/jax/compilation_cache/cache_hits"


def keep(folder: Path) -> None:
    """Keep compiled programs in `folder`: the second start is several times faster.

    What the user has set by JAX's own variables, `JAX_COMPILATION_CACHE_DIR` above all, stays as it
    is. A folder that cannot be written is no error: the programs are then compiled each time.
    """
    for name, value in _SETTINGS.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    if _FOLDER.upper() in os.environ:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _LOG.warning("compiled programs are not kept for the next run: %s", error)
        return
    if jax.config.values[_FOLDER] != str(folder):
        jax.config.update(_FOLDER, str(folder))
        compilation_cache.reset_cache()  # JAX looks once, at the first program of the process


@dataclass
class Count:
    """What was made ready to run.

    Attributes:
      programs: how many, whether compiled or read from the cache.
      from_cache: how many of them were read from the cache.
      seconds: that lowering and compiling, or reading, took; tracing not included.
    """

    programs: int = 0
    from_cache: int = 0
    seconds: float = 0.0

    @property
    def compiled(self) -> int:
        """How many the compiler made."""
        return self.programs - self.from_cache


@contextmanager
def counted() -> Iterator[Count]:
    """Count what JAX compiles, in any thread, until the block ends."""
    count = Count()

    def on_duration(event: str, duration_secs: float, **_: Any) -> None:
        count.programs += event == _COMPILED
        count.seconds += duration_secs if event in (_COMPILED, _LOWERED) else 0.0

    def on_event(event: str, **_: Any) -> None:
        count.from_cache += event == _HIT

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    try:
        yield count
    finally:
        jax.monitoring.unregister_event_duration_listener(on_duration)
        jax.monitoring.unregister_event_listener(on_event)
