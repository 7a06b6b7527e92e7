"""Batch requests that arrive one by one: while one batch computes, the next one fills."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Begin = Callable[[Sequence[Any]], Callable[[], Sequence[Any]]]


class OverloadedError(RuntimeError):
    """The queue of waiting requests is full."""


class Batcher:
    """Passes waiting requests to a function in batches, and waits for results on a thread.

    No request waits for a batch to fill: an idle batcher scores a single request at once, and
    requests that arrive meanwhile form the next batch. Use it from one event loop.

    Args:
      begin: takes 1 to `most` requests and returns a function that waits for one result each. It
        runs in the event loop, because two threads running Python would mostly wait for each other.
        The returned function runs on a thread. If either raises, all requests of the batch fail.
      most: maximum number of requests in a batch.
      limit: maximum number of waiting requests.
    """

    def __init__(self, begin: Begin, *, most: int, limit: int):
        self._begin, self._most, self._limit = begin, most, limit
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._thread = ThreadPoolExecutor(1, "wait")
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Number of requests waiting for a batch."""
        return len(self._waiting)

    async def __call__(self, request: Any) -> Any:
        """Return the result of a request.

        Raises:
          OverloadedError: raised at once if `limit` requests are already waiting.
        """
        if len(self._waiting) >= self._limit:
            raise OverloadedError(f"the queue of waiting requests is full ({self._limit})")
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
                finish = self._begin([request for request, _ in batch])
                found = await loop.run_in_executor(self._thread, finish)
            except Exception as error:
                for _, result in batch:
                    _settle(result, error=error)
            else:
                for (_, result), one in zip(batch, found, strict=True):
                    _settle(result, one)
                await asyncio.sleep(0)  # their answers leave before the next batch begins
        self._task = None


def _settle(result: asyncio.Future[Any], value: Any = None, error: Exception | None = None) -> None:
    if result.done():  # the client has gone
        return
    if error is None:
        result.set_result(value)
    else:
        result.set_exception(error)
