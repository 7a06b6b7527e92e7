"""Estimate the memory and time of reading a RecFlow folder, before it is read."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from dnr_jax.data.recflow import columns, files
from dnr_jax.data.recflow.settings import RecFlowSettings

# benchmarks/preparation.py measured 580 bytes a row of the largest day beside 80 MiB (part of the
# day before is still there), and 0.65 million rows in a second of one core's time, on a busy
# machine; it includes both passes over training days.
BYTES_A_ROW, FIXED_BYTES = 700, 200 * 2**20
ROWS_A_SECOND = 500_000
GIB = 2**30


def estimate(path: Path, settings: RecFlowSettings) -> list[str]:
    """Say how many rows there are, and roughly how much memory and time they take.

    Only headers are read. The estimate assumes that all rows of the kept users are kept; reading
    takes less if the pool needs only some stages.

    Raises:
      FileNotFoundError, ValueError: what `recflow.check` raises.
    """
    days, found = files.find_days(path, period=settings.period, days=settings.days)
    columns.check_headers(days)
    rows = [_rows(day.rows) for day in days]
    kept = max(rows) / settings.one_user_in
    memory = (FIXED_BYTES + kept * BYTES_A_ROW) / GIB
    minutes = sum(rows) / ROWS_A_SECOND / 60
    said = [
        f"{len(days)} days, {days[0].name} to {days[-1].name}; {sum(rows):,} rows, at most "
        f"{max(rows):,} a day" + _share(settings),
        f"about {memory:.1f} GiB of memory (that of the largest day) and {minutes:.0f} minutes",
    ]
    return said + files.absent(found)


def _rows(path: Path) -> int:
    count: int = files.collect(files.scan(path).select(pl.len()), path).item()
    return count


def _share(settings: RecFlowSettings) -> str:
    return f", of which 1 user in {settings.one_user_in}" if settings.one_user_in > 1 else ""
