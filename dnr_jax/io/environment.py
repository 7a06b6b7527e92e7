"""The environment of a result: versions, commit, machine, command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import dnr_jax
from dnr_jax import json_files

FILE = "environment.json"
KEYS = ("command", "packages")  # in every description, of any version
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "polars", "pyarrow")


def describe() -> dict[str, Any]:
    """Describe this process as JSON-able data; an unknown value is None."""
    return {
        "command": command_line(),
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
    }


def read(folder: Path) -> dict[str, Any]:
    """Read the description in a run folder.

    Raises:
      FileNotFoundError: there is no such file.
      DamagedError: the file is not a description.
    """
    return dict(json_files.read(folder / FILE, keys=KEYS, cure="made anew"))


def command_line() -> str:
    """Return the command that started this process, as one would type it."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        start = ["python", "-m", spec.name]
    elif sys.argv[0].endswith(".py"):
        start = ["python", sys.argv[0]]
    else:
        start = [Path(sys.argv[0]).name]  # an installed program
    return shlex.join([*start, *sys.argv[1:]])


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> dict[str, Any] | None:
    """Return the commit of the clone this package runs from, None for an installed package."""
    clone = Path(dnr_jax.__file__).parent.parent
    if not (clone / ".git").exists():
        return None
    name, changes = _git(clone, "rev-parse", "HEAD"), _git(clone, "status", "--porcelain")
    return None if name is None else {"name": name, "dirty": bool(changes)}


def _git(clone: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(clone), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or None


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):  # not known on this system
        return None
