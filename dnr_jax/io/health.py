"""Check the machine for what a run needs: versions, a working device, cache, memory and disk."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from packaging.requirements import Requirement

import dnr_jax

GIB = 2**30
# With less, even the smallest run is likely to fail half-way.
LEAST_MEMORY, LEAST_DISK = 1.0, 1.0
EXTRAS = ("serve", "retrievers", "tensorboard")
_INSTALL = {"gpu": "jax[cuda13]", "tpu": "jax[tpu]"}
_MEMORY = Path("/proc/meminfo")
_LIMIT, _USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
      ok: whether the check passed.
      words: what was found and, if not ok, the remedy.
    """

    ok: bool
    words: str


def examine(device: str | None, cache: Path) -> list[Finding]:
    """Run all checks.

    Args:
      device: "cpu", "gpu" or "tpu", which must be there; None = whatever JAX chooses.
      cache: folder of prepared arrays and compiled programs; it need not exist.
    """
    return [*versions(), extras(), *devices(device), writable(cache), memory(), disk(cache)]


def versions() -> Iterator[Finding]:
    """Compare the installed versions with this package's requirements."""
    yield Finding(True, f"Python {platform.python_version()}, dnr_jax {dnr_jax.__version__}")
    try:
        required = metadata.requires("dnr_jax") or []
    except metadata.PackageNotFoundError:
        yield Finding(True, "dnr_jax is not installed: versions of other packages are not compared")
        return
    for requirement in map(Requirement, required):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _version(requirement)


def _version(requirement: Requirement) -> Finding:
    wanted = f"{requirement.name}{requirement.specifier}"
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Finding(False, f"{requirement.name}: pip install '{wanted}'")
    fits = requirement.specifier.contains(found, prereleases=True)
    cure = "" if fits else f", needs {requirement.specifier}: pip install '{wanted}'"
    return Finding(fits, f"{requirement.name} {found}{cure}")


def extras() -> Finding:
    """Tell which optional parts are installed; a missing one is not a fault."""
    has = {extra: _installed(extra) for extra in EXTRAS}
    words = f"optional parts: {', '.join(name for name in EXTRAS if has[name]) or 'none'}"
    absent = [name for name in EXTRAS if not has[name]]
    cure = f"; not installed: {', '.join(absent)} (pip install 'dnr_jax[{','.join(absent)}]')"
    return Finding(True, words + (cure if absent else ""))


def _installed(extra: str) -> bool:
    try:
        required = map(Requirement, metadata.requires("dnr_jax") or [])
        own = [r for r in required if r.marker and r.marker.evaluate({"extra": extra})]
        return all(metadata.version(r.name) for r in own)
    except metadata.PackageNotFoundError:
        return False


def devices(wanted: str | None) -> Iterator[Finding]:
    """List the devices of a kind, and let the first one add two numbers.

    Args:
      wanted: the kind; None = JAX's own choice.
    """
    try:
        found = jax.devices(wanted)
        with jax.default_device(found[0]):
            total = float(jnp.add(1.0, 2.0))
    except Exception as error:  # a broken driver or plugin may raise anything
        yield Finding(False, _missing(wanted, error))
        return
    kinds = sorted({device.device_kind for device in found})
    words = f"{len(found)} {found[0].platform} device{'s' * (len(found) > 1)}: {', '.join(kinds)}"
    yield Finding(total == 3.0, words + ("" if total == 3.0 else f"; it computes 1 + 2 = {total}"))
    if stats := found[0].memory_stats():
        free = (stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)) / GIB
        yield Finding(True, f"{free:.1f} GiB of memory for JAX on the first of them")


def _missing(wanted: str | None, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    chosen = os.environ.get("JAX_PLATFORMS")
    if chosen and wanted and wanted not in chosen.replace("cuda", "gpu").replace("rocm", "gpu"):
        return f"{wanted}: JAX_PLATFORMS is {chosen}, which leaves it out: unset it"
    cure = f"; pip install '{_INSTALL[wanted]}' and its driver" if wanted in _INSTALL else ""
    return f"{wanted or 'a device'}: {reason}{cure}"


def writable(folder: Path) -> Finding:
    """Write a file into the folder, or into the nearest one above it that exists."""
    place = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
    except OSError as error:
        reason = error.strerror or str(error)
        return Finding(False, f"cache {folder}: {place}: {reason}: choose another by --cache")
    return Finding(True, f"cache {folder} can be written")


def memory() -> Finding:
    """Tell how much memory a process may still take, the limit of a container included."""
    free = free_memory()
    if free is None:
        return Finding(True, "free memory: not known on this system")
    enough = free / GIB >= LEAST_MEMORY
    cure = "" if enough else f": a run takes {LEAST_MEMORY:g} GiB at least, close other programs"
    return Finding(enough, f"{free / GIB:.1f} GiB of memory free{cure}")


def free_memory() -> int | None:
    """Return the bytes of free memory; None if the system does not tell."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMORY.read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None
    try:
        return min(free, int(_LIMIT.read_text()) - int(_USED.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free


def disk(folder: Path) -> Finding:
    """Tell how much disk space is free where the folder is or will be."""
    free = shutil.disk_usage(_nearest(folder)).free / GIB
    enough = free >= LEAST_DISK
    cure = "" if enough else f": a run takes {LEAST_DISK:g} GiB, free some or choose by --cache"
    return Finding(enough, f"{free:.1f} GiB of disk free at {folder}{cure}")


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
