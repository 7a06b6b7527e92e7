"""Start the next piece of work before the last result is taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def one_ahead(begun: Iterable[T]) -> Iterator[T]:
    """Yield each item once the next one has been requested, which starts its work.

    Items are pending results, such as arrays that JAX is computing or futures of a thread.
    """
    ahead = deque[T]()
    for one in begun:
        ahead.append(one)
        if len(ahead) > 1:
            yield ahead.popleft()
    yield from ahead
