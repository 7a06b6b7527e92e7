"""Programs that a test process holds: as many as the system allows, as making them anew is dear."""

from pathlib import Path

import jax

# XLA crashes where a process has used up its maps of memory, 65,530 on Linux by default. At these
# it takes some 1.7 GiB; a program takes 5 to 50.
MOST_MAPS = 8_000
_MAPS = Path("/proc/self/maps")


def drop_if_many() -> None:
    """Drop compiled programs and traces if the process holds many of them.

    Tracing and lowering what tests have in common took a fifth of their time when each file, and
    each model of the contract, began with none.
    """
    if not _MAPS.exists() or _MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
