"""One line of an audit."""

from __future__ import annotations

from typing import NamedTuple

OK, WARN, LEAK = "OK", "WARN", "LEAK"
LEVELS = (OK, WARN, LEAK)  # from harmless to worst


class Finding(NamedTuple):
    """What one check saw.

    Attributes:
      level: `OK`, `WARN` (know it when you read results) or `LEAK` (results are not what they
        seem).
      check: short name of the check.
      text: one plain sentence with the numbers seen.
    """

    level: str
    check: str
    text: str
