"""The amount of device memory."""

from __future__ import annotations

import os

import jax

GIB = 2**30


def of_device() -> int | None:
    """Return the bytes of the first device's memory, the machine's on a CPU; None = not known."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        limit: int | None = (device.memory_stats() or {}).get("bytes_limit")
        return limit
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
