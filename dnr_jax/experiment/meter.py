"""A command's progress over all its rows and protocols, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta


class Meter:
    """Counts the rows of a command and estimates the time left from the rows it has worked on.

    Args:
      total: rows of all protocols together.
      clock: seconds, for tests.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic):
        self._total, self._clock = total, clock
        self._begun = self._worked = 0
        self._start = clock()

    def begin(self, label: str) -> str:
        """Say which row begins: `row 3 of 40: PRM; 2 done in 0:01:10, about 0:21:35 to go`."""
        before, self._begun = self._begun, self._begun + 1
        line = f"row {self._begun} of {self._total}: {label}"
        if not self._worked:
            return line
        elapsed = self._clock() - self._start
        left = elapsed / self._worked * (self._total - before)
        return f"{line}; {self._worked} done in {_clock(elapsed)}, about {_clock(left)} to go"

    def worked(self) -> None:
        """Count a row as done by this command, as opposed to found finished."""
        self._worked += 1


def _clock(seconds: float) -> timedelta:
    return timedelta(seconds=round(seconds))
