"""`dnr-jax score` against the bare program: candidates per second, from Parquet to Parquet.

    python -m benchmarks.score_file

A PRM of 3 + 1 layers, 64 wide, with drawn parameters ranks a generated table: N = 50 candidates of
two features, T = 50 events. `bare` calls the compiled program on arrays of the same requests, in
batches of the same shape, already on the device, and makes the next call before it takes a result,
as a file's are. `file` is `serving.files.score_file`, without the time to load the model, on a
table with a request's history in each of its rows; `history once` is the same with the history in
the request's first row alone. All run in turn, in one process, after a round of warming up; the
last column is CPU time, of all cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl

from benchmarks import harness, served_model
from dnr_jax import serving
from dnr_jax.ahead import one_ahead
from dnr_jax.serving import files

REQUESTS, ROUNDS = 40 * 512, 5  # whole batches: no path computes on padding


def table(requests: int, path: Path) -> None:
    """Write the candidates of some requests, each with its user's history."""
    random, n = np.random.default_rng(0), served_model.CANDIDATES
    rows = requests * n
    item = np.concatenate([random.permutation(served_model.ITEMS)[:n] for _ in range(requests)])
    past = random.integers(served_model.ITEMS, size=(requests, served_model.EVENTS))
    frame = pl.DataFrame(
        {
            "request_id": np.repeat(np.arange(requests), n),
            "user_id": np.repeat(random.integers(served_model.USERS, size=requests), n),
            "item_id": item,
            "score": random.random(rows),
            "i_brand": item % served_model.BRANDS,
            "i_price": 100 * random.random(rows),
        }
    )
    histories = pl.DataFrame({"request_id": np.arange(requests), "history": past.tolist()})
    frame.join(histories, on="request_id", maintain_order="left").write_parquet(path)


def with_history_once(path: Path) -> Path:
    """Write such a table again, with the history only in the first row of each request."""
    first = pl.col("request_id").is_first_distinct()
    once = path.with_name("once.parquet")
    pl.read_parquet(path).with_columns(pl.when(first).then("history")).write_parquet(once)
    return once


def bare(scorer: serving.Scorer, path: Path) -> Callable[[], Any]:
    """Return a call of the compiled program on all requests of a table, in the scorer's batches."""
    prepared = scorer.prepared(scorer.read(path))
    batches = [jax.device_put(batch.given) for batch in prepared.batches]
    model = scorer.model

    def call() -> list[np.ndarray]:
        calls = (model.order(model.params, *given) for given in batches)
        return [np.asarray(found) for found in one_ahead(calls)]

    return call


def worked_for(call: Callable[[], Any], found: list[float]) -> Callable[[], Any]:
    """Wrap the call so it adds its CPU seconds to a list."""

    def clocked() -> Any:
        began = time.process_time()
        result = call()
        found.append(time.process_time() - began)
        return result

    return clocked


def main(arguments: argparse.Namespace) -> None:
    """Measure all in turn and print."""
    requests, rounds = (2 * 512, 1) if arguments.smoke else (REQUESTS, ROUNDS)
    with tempfile.TemporaryDirectory() as place:
        small: dict[str, Any] = {"width": 8, "layers": 1, "feed_forward": 8}
        folder = served_model.make(Path(place) / "model", **(small if arguments.smoke else {}))
        candidates, out = Path(place) / "candidates.parquet", Path(place) / "ranked.parquet"
        table(requests, candidates)
        scorer = serving.Scorer(folder)
        program = bare(scorer, candidates)
        tables = {"file": candidates, "history once": with_history_once(candidates)}
        calls: dict[str, Callable[[], Any]] = {"bare": program}
        for name, given in tables.items():
            calls[name] = partial(files.score_file, scorer, given, out, overwrite=True)
        worked: dict[str, list[float]] = {name: [] for name in calls}
        seconds = harness.seconds_in_turn(
            {name: worked_for(call, worked[name]) for name, call in calls.items()},
            repeats=rounds,
        )
    count = requests * served_model.CANDIDATES
    rates = {name: count / np.median(seconds[name]) for name in calls}
    rows = [
        {
            "path": name,
            "candidates": count,
            "candidates/s": rate,
            "of bare": rate / rates["bare"],
            "core-seconds": float(np.median(worked[name][-rounds:])),
        }
        for name, rate in rates.items()
    ]
    harness.report("Scoring a file", rows, arguments.json)


if __name__ == "__main__":
    main(harness.parser(__doc__).parse_args())
