"""Programs that a test process holds: as many as the system allows, as making them anew is dear."""

from pathlib import Path

import jax

# XLA crashes where a process has used up its maps of memory, 65,530 on Linux by default. At 6,200
# the process took 1.3 GiB.
MOST_MAPS = 8_000
_MAPS = Path("/proc/self/maps")


def drop_if_many() -> None:
    """Drop compiled programs and traces if the process holds many of them.

    Tracing and lowering what models have in common took a fifth of the contract's time when each
    model began with none. Between files they are always dropped: kept for the whole suite they
    took four gigabytes and saved nothing.
    """
    if not _MAPS.exists() or _MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
