"""One line of an audit."""

from __future__ import annotations

from typing import NamedTuple

OK, WARN, LEAK = "OK", "WARN", "LEAK"
LEVELS = (OK, WARN, LEAK)  # from harmless to worst


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
      level: `OK`, `WARN` (keep it in mind when you read results) or `LEAK` (results are not what
        they seem).
      check: short name of the check.
      text: one plain sentence with the numbers found.
    """

    level: str
    check: str
    text: str
