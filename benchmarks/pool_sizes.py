"""Quality and cost by the number of candidates N and the list length K.

    python -m benchmarks.pool_sizes --path ML-100K       the whole table, N = 20 to 200, K = 1 to 20
    python -m benchmarks.pool_sizes --sizes 20 50 --slates 6

The papers fix N = 50 and K = 6. Each pair is an ordinary run folder under `--workdir`, of the
config `movielens:first_stages` with matrix factorisation; a restarted command resumes where it
stopped. Pairs with N <= K are left out: there would be nothing to choose. The protocol is
`retrieved_pool`, the honest one: an exposed item that the retriever misses is not a candidate. So
more requests count with a larger N: `measured` are those with a positive in the pool, and N@K is
their mean. The column to compare over N is `end to end`: its ideal takes all positives of a
request, in the pool or not, and a request whose positives were all missed counts as 0. Values at
different K are not comparable, because the lists differ.

Cost is that of PRM with scores at the size of these runs, drawn requests, the best of several
calls in turn: a train step of 128 requests, and scoring 64 at once. K has no part in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks import harness, standard_case, throughput
from benchmarks.standard_case import Work
from configs import movielens
from dnr_jax import experiment, rerankers, types
from dnr_jax.reports import results, tables
from dnr_jax.reports.tables import Column
from dnr_jax.training.epoch import seed_axis

SIZES, SLATES = (20, 50, 100, 200), (1, 6, 10, 20)
SMOKE_SIZES, SMOKE_SLATES = (8,), (2, 8)
TABLE = ("retriever", "plain", "score", "sasrec", "sasrec_score")
TRAINED, SCORED = 128, 64  # requests at once
SMALLEST: dict[str, Any] = {
    "table": "retriever",
    "reranker": {"width": 8, "heads": 1, "feed_forward": 8},
    "retriever": {"name": "popularity", "cross_fit": 0},
    "data": {"history": 4, "core": 5, "simulate": {"users": 60, "movies": 80}},
}


class Pair(NamedTuple):
    """N candidates, of which K are shown."""

    size: int
    slate: int


def pairs(sizes: Iterable[int], slates: Iterable[int]) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs that can be run, and those without more candidates than places."""
    every = [Pair(size, slate) for slate in slates for size in sizes]
    return [p for p in every if p.size > p.slate], [p for p in every if p.size <= p.slate]


def config_of(pair: Pair, arguments: argparse.Namespace) -> dict[str, Any]:
    """Make the config of a pair's run."""
    config = movielens.get_config("first_stages")
    config.update({"retriever": {"name": "matrix_factorization"}, "table": ",".join(TABLE)})
    config.update(SMALLEST if arguments.smoke else {})
    own: dict[str, Any] = {
        "candidates": {"name": "retrieved_pool", "size": pair.size},
        "eval": {"k": pair.slate},
        "data": {"path": arguments.path},
    }
    if not arguments.smoke:
        own |= {"train": {"seeds": arguments.seeds}}
    config.update(own | ({"cache": str(arguments.cache)} if arguments.cache else {}))
    return dict(config.to_dict())


def quality(pair: Pair, folder: Path) -> dict[str, Any]:
    """Read N@K of each row, in percent, and the number of requests."""
    run = results.read(folder)
    score = next((line for line in run.lines if line.row == "score"), run.lines[-1])
    return {
        "N": pair.size,
        "K": pair.slate,
        "requests": run.requests,
        "measured": run.requests - run.excluded,
        **{line.label: _percent(line, run.main_metric) for line in run.lines},
        f"end to end, {score.label}": _percent(score, f"{run.main_metric}_end_to_end"),
    }


def _percent(line: results.Line, metric: str) -> str:
    return tables.number(line, Column(metric, metric, 100, 2))


def costs(sizes: Iterable[int], *, history: int, repeats: int, **knobs: Any) -> dict[int, Any]:
    """Time PRM by N: ms per train step, and ms per request of a scored batch."""
    calls: dict[tuple[int, str], Callable[[], Any]] = {}
    work = Work(0, "late")
    for size in sizes:
        batch = partial(standard_case.make_batch, candidates=size, history=history)
        calls[size, "train"] = _training(work, batch(TRAINED), knobs)
        calls[size, "score"] = _scoring(work, jax.device_put(batch(SCORED)), knobs)
    best = {key: 1e3 * t.best for key, t in harness.time_in_turn(calls, repeats=repeats).items()}
    return {
        size: {
            f"train step of {TRAINED}, ms": best[size, "train"],
            "scoring, ms/request": best[size, "score"] / SCORED,
        }
        for size in sizes
    }


def _training(work: Work, batch: types.Batch, knobs: dict[str, Any]) -> Callable[[], Any]:
    game = standard_case.make_game(work, "float32", **knobs)
    epoch, states, *rest = throughput.make_program(game, work, batch, [0], 1, seed_axis())

    def call() -> Any:
        nonlocal states
        states, _ = epoch(states, *rest)
        return states

    return call


def _scoring(work: Work, batch: types.Batch, knobs: dict[str, Any]) -> Callable[[], Any]:
    own = standard_case.knobs_of(work, **knobs)
    reranker = rerankers.build("prm", standard_case.TASK, **own)
    params = reranker.init(jax.random.key(0), batch.request, batch.scores)
    return partial(jax.jit(partial(types.apply, reranker)), params, batch.request, batch.scores)


def main(arguments: argparse.Namespace) -> None:
    """Run every pair that has not been run, time each N, and print the table."""
    smoke = arguments.smoke
    sizes = SMOKE_SIZES if smoke else arguments.sizes
    wanted, left_out = pairs(sizes, SMOKE_SLATES if smoke else arguments.slates)
    configs = {pair: config_of(pair, arguments) for pair in wanted}
    knobs = next(iter(configs.values()))
    folders = {pair: arguments.workdir / f"n{pair.size}_k{pair.slate}" for pair in wanted}
    for pair, folder in folders.items():
        experiment.run_all(configs[pair], folder)
    timed = costs(
        dict.fromkeys(pair.size for pair in wanted),
        history=knobs["data"]["history"],
        repeats=2 if smoke else 20,
        **knobs["reranker"],
    )
    found = [quality(pair, folder) | timed[pair.size] for pair, folder in folders.items()]
    harness.report("Pool sizes: N@K in percent, mean ± deviation over seeds", found, arguments.json)
    for pair in left_out:
        print(f"left out: N = {pair.size} with K = {pair.slate}, nothing to choose")


def parser() -> argparse.ArgumentParser:
    """Make the parser of the benchmark's flags."""
    made = harness.parser(__doc__ or "")
    made.add_argument("--path", default="", help="MovieLens folder; else simulated")
    made.add_argument("--workdir", type=Path, default=Path("runs/pool_sizes"), help="run folders")
    made.add_argument("--cache", type=Path, help="cache of prepared data; else the usual one")
    made.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="N")
    made.add_argument("--seeds", type=int, default=3, help="of each row that is trained")
    made.add_argument("--slates", type=int, nargs="+", default=list(SLATES), help="K")
    return made


if __name__ == "__main__":
    main(parser().parse_args())
