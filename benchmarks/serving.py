"""The HTTP service under load: latency and rate by the number of clients.

    python -m benchmarks.serving

Starts `dnr-jax serve` in its own process, on a PRM of 3 + 1 layers, 64 wide, with random
parameters, and sends requests from another: N = 50 candidates of two features, T = 50 events, some
5 kB of JSON. Service and clients share the cores of the machine. A `closed` client sends the next
request as soon as it has an answer, so its rate is the service's maximum. A `paced` client sends at
random times with a given mean rate, however long answers take, and queues a request if it is late:
latency counts from the planned time.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop

from benchmarks import harness, served_model

BODIES = 64  # different requests, in turn
WARM_SECONDS = 1.0


class Load(NamedTuple):
    """Clients, and their total target rate in requests per second; 0 = closed loop."""

    clients: int
    rate: float = 0.0


LOADS = (Load(1), Load(8), Load(64), *(Load(64, rate) for rate in (200, 400, 800, 1600, 3200)))
SMOKE = (Load(2), Load(2, 20.0))


@contextmanager
def service(folder: Path, *options: str) -> Iterator[int]:
    """Run the service of a model until the block ends; yields its port."""
    command = [sys.executable, "-m", "dnr_jax.cli", "serve", str(folder), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = iter(process.stdout.readline, "")
            ready = next(line for line in lines if line.startswith("serving"))
            yield int(ready.rpartition(":")[2])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@cache
def payloads() -> list[bytes]:
    """Write the requests of `BODIES` users as HTTP."""
    made = []
    for seed in range(BODIES):
        body = json.dumps(served_model.ask(seed)).encode()
        head = f"POST /rank HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
        made.append(head.encode() + body)
    return made


class Client(asyncio.Protocol):
    """Sends requests until a time; records each one's due time, answer time and status.

    Args:
      number: which of the clients; it begins with the body of that number.
      load: see `Load`.
      until: when it stops, as `time.perf_counter` tells.
      found: what it notes goes there.
      ended: set once it has stopped.
    """

    def __init__(
        self,
        number: int,
        load: Load,
        until: float,
        found: list[tuple[float, float, int]],
        ended: asyncio.Future[None],
    ):
        self._turn, self._until, self._found, self._ended = number, until, found, ended
        self._pause = load.clients / load.rate if load.rate else 0.0
        self._random, self._payloads = np.random.default_rng(number), payloads()
        self._due, self._left, self._status = time.perf_counter(), 0, 0

    def connection_made(self, transport: Any) -> None:
        """Send the first request."""
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        """Count an answer's bytes (its head comes in one piece); at its end, send the next."""
        if not self._left:
            head, _, data = data.partition(b"\r\n\r\n")
            self._left, self._status = _length(head), int(head.split(b" ", 2)[1])
        self._left -= len(data)
        if not self._left:
            self._found.append((self._due, time.perf_counter(), self._status))
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        """Report that no more answers come."""
        if not self._ended.done():
            self._ended.set_exception(error or ConnectionError("the service has hung up"))

    def _next(self) -> None:
        now = time.perf_counter()
        self._due = self._due + self._random.exponential(self._pause) if self._pause else now
        if self._due > self._until:
            self._ended.set_result(None)
            self._transport.close()
        elif self._due > now:
            asyncio.get_running_loop().call_later(self._due - now, self._ask)
        else:
            self._ask()

    def _ask(self) -> None:
        self._transport.write(self._payloads[self._turn % BODIES])
        self._turn += 1


def _length(head: bytes) -> int:
    [line] = [one for one in head.lower().split(b"\r\n") if one.startswith(b"content-length")]
    return int(line.partition(b":")[2])


def put(port: int, load: Load, seconds: float) -> dict[str, Any]:
    """Put a load on the service; summarise the answers after a second of warm-up."""
    found: list[tuple[float, float, int]] = []
    payloads()
    gc.freeze()  # no full collection while answers come

    async def main() -> float:
        began = time.perf_counter()
        until = began + WARM_SECONDS + seconds
        loop = asyncio.get_running_loop()
        ends = [loop.create_future() for _ in range(load.clients)]
        for number, end in enumerate(ends):
            made = partial(Client, number, load, until, found, end)
            await loop.create_connection(made, "127.0.0.1", port)
        await asyncio.gather(*ends)
        return began + WARM_SECONDS

    start = uvloop.run(main())
    kept = [one for one in found if one[0] >= start]
    good = [1e3 * (end - due) for due, end, status in kept if status == 200]
    statuses = Counter(status for *_, status in kept)
    p50, p99 = (float(np.quantile(good, share)) for share in (0.5, 0.99))
    last = max(end for _, end, _ in kept)
    return {
        "clients": load.clients,
        "asked/s": f"{load.rate:g}" if load.rate else "closed",
        "answered/s": len(good) / (last - start),
        "p50 ms": p50,
        "p99 ms": p99,
        "503": statuses[503],
        "other": sum(statuses.values()) - len(good) - statuses[503],
    }


def main(arguments: argparse.Namespace) -> None:
    """Measure all loads in turn and print."""
    small: dict[str, Any] = {"width": 8, "layers": 1, "feed_forward": 8}
    options = ["--batch", "2"] if arguments.smoke else []
    with tempfile.TemporaryDirectory() as place:
        folder = served_model.make(Path(place) / "model", **(small if arguments.smoke else {}))
        with service(folder, *options, "--cache", f"{place}/cache") as port:
            loads, seconds = (SMOKE, 0.5) if arguments.smoke else (LOADS, 10.0)
            rows = [put(port, load, seconds) for load in loads]
    harness.report("Serving", rows, arguments.json)


if __name__ == "__main__":
    main(harness.parser(__doc__).parse_args())
