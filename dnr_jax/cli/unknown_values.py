"""What commands say of values that the model does not know."""

from __future__ import annotations

from collections.abc import Collection, Mapping

# What the unknown values of a side are counted among, where that was counted.
_AMONG = {"user": "requests", "context": "requests", "item": "candidates", "history": "events"}


def lines(counts: Mapping[str, int], missing: Collection[str]) -> list[str]:
    """Say of each column how many of its values are unknown, one line per column, in their order.

    Args:
      counts: as in `batches.Scored`, "unknown SIDE.COLUMN" among them.
      missing: columns that the table lacks, of which nothing is said.
    """
    found = []
    for name, count in counts.items():
        side, _, column = name.removeprefix("unknown ").partition(".")
        if name.startswith("unknown ") and count and column not in missing:
            among = counts.get(_AMONG.get(side, ""), 0)
            found.append(f"unknown {column} ({side}): {count:,}{f' of {among:,}' if among else ''}")
    return found
