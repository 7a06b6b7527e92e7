"""What every data set lets its user choose, and the sizes that a table asks of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from dnr_jax.settings import Settings, knob


@dataclass(frozen=True, kw_only=True)
class DataSettings(Settings):
    """Base of a data set's settings; each adds its own, and those of its simulator."""

    path: str = knob("", "your download; empty = simulate its files once into the cache")
    history: int = knob(
        50, "T, latest events of the user before the request", at_least=1, at_most=100_000
    )
    simulate: Settings = knob(Settings(), "size of the simulation, read only while path is empty")


class Shape(NamedTuple):
    """Sizes of a request.

    Attributes:
      size: candidates N; missing ones are masked.
      slate: places K of the shown list, 1 <= K <= N.
    """

    size: int
    slate: int

    def check(self) -> None:
        """Raise `ValueError` unless the candidates are at least as many as the shown places."""
        if not 1 <= self.slate <= self.size:
            raise ValueError(
                f"candidates.size is {self.size}, which does not hold a shown list of "
                f"{self.slate}: choose at least {max(self.slate, 1)}"
            )
