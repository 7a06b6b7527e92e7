"""Settings shared by all data sets, and the request sizes that a table asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from dnr_jax.settings import Settings, knob


@dataclass(frozen=True, kw_only=True)
class DataSettings(Settings):
    """Base of every data set's settings; each adds its own and its simulator's."""

    path: str = knob("", "your download; empty = simulate its files once into the cache")
    history: int = knob(
        50, "T, latest events of the user before the request", at_least=1, at_most=100_000
    )
    simulate: Settings = knob(Settings(), "size of the simulation, read only while path is empty")


class Shape(NamedTuple):
    """Sizes of a request.

    Attributes:
      size: number of candidates N; missing ones are masked.
      slate: number of places K of the shown list, 1 <= K <= N.
    """

    size: int
    slate: int

    def check(self) -> None:
        """Raise `ValueError` unless there are at least as many candidates as shown places."""
        if not 1 <= self.slate <= self.size:
            raise ValueError(
                f"candidates.size is {self.size}, too small for a shown list of "
                f"{self.slate}: choose at least {max(self.slate, 1)}"
            )
