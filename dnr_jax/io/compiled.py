"""Compiled programs: cached on disk between runs, and counted as a run compiles or reads them.

A cached program is native code that this process will run: the folder must be the user's own.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import jax
from jax._src import compilation_cache

from dnr_jax import durable

_LOG = logging.getLogger(__name__)
_CONFIG: Any = jax.config
# JAX's own module: it has no public way to look at an entry before it is run.
_JAX: Any = compilation_cache
_FOLDER = "jax_compilation_cache_dir"
# A run is a few large programs and some small ones: all of them are kept.
_SETTINGS = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
_COMPILED = "/jax/core/compile/backend_compile_duration"  # also when read from the cache
_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
_HIT = "/jax/compilation_cache/cache_hits"
_SUFFIX = "-cache"  # of JAX's files
_SEAL = hashlib.sha256().digest_size


def keep(folder: Path) -> None:
    """Cache compiled programs in `folder`: the second start is several times faster.

    JAX's own environment variables, above all `JAX_COMPILATION_CACHE_DIR`, take precedence. A
    folder that cannot be written is not an error: the programs are then compiled each time. An
    entry that differs from what was written is removed, and its program compiled again.
    """
    for name, value in _SETTINGS.items():
        if name.upper() not in os.environ:
            _CONFIG.update(name, value)
    if _FOLDER.upper() in os.environ:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _LOG.warning("compiled programs are not kept for the next run: %s", error)
        return
    if _CONFIG.values[_FOLDER] != str(folder):
        _CONFIG.update(_FOLDER, str(folder))
        _JAX.reset_cache()  # JAX looks once, at the first program of the process
        _JAX._cache = SealedCache(folder)
        _JAX._cache_initialized = True


class SealedCache:
    """JAX's cache of compiled programs with a hash of name and content before each entry.

    JAX would run an entry stored under another's name. It would also warn of a damaged entry at
    every start, because it never overwrites one.
    """

    def __init__(self, folder: Path):
        self._files, self._path = _JAX.get_file_cache(str(folder))[0], folder
        self._failed = False

    def get(self, key: str) -> bytes | None:
        """Return the program of a key; None if there is none or it is damaged."""
        try:
            entry: bytes | None = self._files.get(key)
        except OSError:  # a folder, or not readable
            entry = b""
        if entry is None:
            return None
        seal, program = entry[:_SEAL], entry[_SEAL:]
        if seal == _seal(key, program):
            return program
        _LOG.info("a compiled program in %s is damaged: it is compiled again", self._path)
        self._remove(key)
        return None

    def put(self, key: str, program: bytes) -> None:
        """Store a program; an entry already under its key was unusable and is replaced."""
        try:
            self._remove(key)
            self._files.put(key, _seal(key, program) + program)
        except OSError as error:
            self._remove(key)  # half an entry, on a full disk
            if not self._failed:
                _LOG.warning("compiled programs are not kept for the next run: %s", error)
            self._failed = True

    def _remove(self, key: str) -> None:
        try:
            durable.remove(self._path / f"{key}{_SUFFIX}")
        except OSError as error:
            _LOG.debug("%s", error)  # an entry that cannot be removed is not used either


def _seal(key: str, program: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + program).digest()


@dataclass
class Count:
    """Counts of programs made ready to run.

    Attributes:
      programs: number of programs, compiled or read from the cache.
      from_cache: number of those read from the cache.
      seconds: time of lowering and compiling, or reading, without tracing.
    """

    programs: int = 0
    from_cache: int = 0
    seconds: float = 0.0

    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    @property
    def compiled(self) -> int:
        """Number of programs that were compiled."""
        return self.programs - self.from_cache

    def add(self, *, programs: int = 0, from_cache: int = 0, seconds: float = 0.0) -> None:
        """Add to the counts; safe from any thread."""
        with self._lock:
            self.programs += programs
            self.from_cache += from_cache
            self.seconds += seconds


@contextmanager
def counted(count: Count | None = None) -> Iterator[Count]:
    """Count what JAX compiles in this thread until the block ends, on top of `count`."""
    count, thread = Count() if count is None else count, threading.get_ident()

    def on_duration(event: str, duration_secs: float, **_: Any) -> None:
        if event in (_COMPILED, _LOWERED) and threading.get_ident() == thread:
            count.add(programs=event == _COMPILED, seconds=duration_secs)

    def on_event(event: str, **_: Any) -> None:
        if event == _HIT and threading.get_ident() == thread:
            count.add(from_cache=1)

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    try:
        yield count
    finally:
        jax.monitoring.unregister_event_duration_listener(on_duration)
        jax.monitoring.unregister_event_listener(on_event)
