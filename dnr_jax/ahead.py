"""Work that is begun before the last one's result is taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def one_ahead(begun: Iterable[T]) -> Iterator[T]:
    """Yield each item once the next one was asked for: asking for it begins its work.

    Items are results in the making, as arrays that JAX computes, or futures of a thread.
    """
    ahead = deque[T]()
    for one in begun:
        ahead.append(one)
        if len(ahead) > 1:
            yield ahead.popleft()
    yield from ahead
