"""Requests that come one by one, scored together: while a batch computes, the next one gathers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Score = Callable[[Sequence[Any]], Sequence[Any]]


class OverloadedError(RuntimeError):
    """As many requests wait as may."""


class Batcher:
    """Gives waiting requests to a function, several at once, on one thread of its own.

    Nothing waits for others to come: an idle batcher scores a single request at once, and what
    arrives meanwhile is the next batch. Use it from one event loop.

    Args:
      score: of 1 to `most` requests -> a result each. If it raises, all of them fail.
      most: requests of a batch.
      limit: requests that may wait.
    """

    def __init__(self, score: Score, *, most: int, limit: int):
        self._score, self._most, self._limit = score, most, limit
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._thread = ThreadPoolExecutor(1, "score")
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many requests wait for a batch."""
        return len(self._waiting)

    async def __call__(self, request: Any) -> Any:
        """Return the result of a request.

        Raises:
          OverloadedError: at once, where `limit` requests wait already.
        """
        if len(self._waiting) >= self._limit:
            raise OverloadedError(f"as many requests are waiting as may ({self._limit})")
        result = asyncio.get_running_loop().create_future()
        self._waiting.append((request, result))
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return await result

    async def _work(self) -> None:
        """Score batches until nothing waits."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            count = min(self._most, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            try:
                found = await loop.run_in_executor(
                    self._thread, self._score, [request for request, _ in batch]
                )
            except Exception as error:
                for _, result in batch:
                    _settle(result, error=error)
            else:
                for (_, result), one in zip(batch, found, strict=True):
                    _settle(result, one)
        self._task = None


def _settle(result: asyncio.Future[Any], value: Any = None, error: Exception | None = None) -> None:
    if result.done():  # whoever asked has gone
        return
    if error is None:
        result.set_result(value)
    else:
        result.set_exception(error)
