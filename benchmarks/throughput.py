"""Training and scoring rates: dnr_jax against PyTorch (eager and compiled) on equal work.

  python -m benchmarks.throughput step      a train step, by phase and score entry
  python -m benchmarks.throughput epoch     an epoch with its evaluation against bare steps
  python -m benchmarks.throughput seeds     five seeds against one
  python -m benchmarks.throughput score     scoring

The work is `standard_case`: DNR on PRM, N = 50, T = 50, width 128. All calls of a table take turns
in one process, and the best of each counts. `of matmul` is the share of the machine's matrix rate,
measured in the same turns and dtype, in useful FLOPs: those of a plain implementation, whatever was
saved. On a GPU float32 products are TF32 in both frameworks. A step of phase 2 is one update of
each player on one batch. PyTorch need not be installed if `--rivals` is given without a name.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import harness, standard_case
from benchmarks.standard_case import WORKS, Work
from dnr_jax import metrics, types
from dnr_jax.training import phases
from dnr_jax.training.epoch import alternate, make_epoch, seed_axis, stack_states
from dnr_jax.training.parts import part_size
from dnr_jax.training.step import Game, Step, TrainState, make_step
from dnr_jax.types import Batch

Row = dict[str, Any]
Call = Callable[[], Any]
EAGER = "PyTorch eager"
# The rivals, and the mode that each passes to torch.compile.
RIVALS = {
    EAGER: None,
    "torch.compile": "default",
    "torch.compile, reduce-overhead": "reduce-overhead",
}
# Rows and columns of the product that measures the machine: on a GPU it takes a millisecond.
MATRIX = {"cpu": 2048, "gpu": 8192, "tpu": 8192}


def step_table(options: argparse.Namespace) -> list[Row]:
    """Time a train step of every work, framework, batch size and dtype."""
    rows: list[Row] = []
    for size in options.batch_sizes:
        batch, steps = standard_case.make_batch(size), _steps_a_call(size, options)
        for dtype in options.dtypes:
            calls: dict[Any, Call] = {}
            for work in options.works:
                calls["dnr_jax", work] = _steps(work, batch, dtype, steps, **options.sizes)
                for name in options.rivals:
                    calls[name, work] = _torch_steps(
                        work, batch, dtype, steps, RIVALS[name], **options.sizes
                    )
            seconds, rate = _best_seconds(calls, options, dtype)
            seconds = {key: seconds[key] / steps for key in calls}
            share = size * standard_case.train_flops(**options.sizes) / rate
            rows += [_step_row(*key, size, dtype, seconds, share) for key in calls]
    return rows


def _step_row(
    framework: str, work: Work, size: int, dtype: str, seconds: dict[Any, float], at_rate: float
) -> Row:
    """Make a row; `at_rate` is the time of a plain step's products at the matrix rate."""
    taken = seconds[framework, work]
    eager = seconds.get((EAGER, work))
    return {
        "work": str(work),
        "framework": framework,
        "batch": size,
        "dtype": dtype,
        "ms/step": 1e3 * taken,
        "requests/s": size / taken,
        "over plain": taken / seconds[framework, work._replace(phase=0)],
        "times eager": eager / taken if eager else "",
        "of matmul": at_rate / taken if work.phase == 0 else "",
    }


def _steps(work: Work, batch: Batch, dtype: str, steps: int, **sizes: Any) -> Call:
    """Make a call of `steps` steps on one batch, in one program as in training."""
    game = standard_case.make_game(work, dtype, **sizes)
    return _epochs(game, work, batch, [0], steps, seed_axis())


def _epochs(game: Game, work: Work, batch: Batch, seeds: list[int], steps: int, how: str) -> Call:
    """Make a call of an epoch program that sees the whole batch `steps` times."""
    epoch, states, *rest = make_program(game, work, batch, seeds, steps, how)

    def call() -> TrainState:
        nonlocal states
        states, _ = epoch(states, *rest)
        return states

    return call


def make_program(
    game: Game, work: Work, batch: Batch, seeds: list[int], steps: int, how: str
) -> tuple[Any, ...]:
    """Return an epoch program of `steps` steps on one batch, and its arguments, states first."""
    plan = alternate(steps, generator_updates=int(work.phase == 2), reranker_updates=1)
    size = len(batch.scores)
    epoch = make_epoch(_step(game, size), seeds=how)
    rows = jnp.broadcast_to(jnp.arange(size), (len(seeds), len(plan.turns), size))
    states = stack_states([standard_case.fresh(game, batch, seed) for seed in seeds])
    return epoch, states, jax.device_put(batch), rows, plan.turns


def _step(game: Game, size: int) -> Step:
    """Make the step of training for batches of `size`, in parts where training would."""
    plays = game.divergence is not None
    return make_step(game, standard_case.optimizer(), plays=plays, part=part_size(size))


def _torch_steps(
    work: Work, batch: Batch, dtype: str, steps: int, mode: str | None, **sizes: Any
) -> Call:
    from benchmarks import torch_runs

    return torch_runs.training(work, batch, dtype, steps=steps, mode=mode, **sizes)


def _best_seconds(
    calls: dict[Any, Call], options: argparse.Namespace, dtype: str
) -> tuple[dict[Any, float], float]:
    """Time the calls in turn: the best seconds of each, and the machine's FLOP/s beside them."""
    size = 64 if options.smoke else MATRIX[jax.default_backend()]
    square = jax.random.normal(jax.random.key(0), (size, size), dtype)
    multiply = partial(jax.jit(jnp.matmul), square, square)
    timings = harness.time_in_turn({**calls, "matmul": multiply}, repeats=options.repeats)
    rate = 2 * size**3 / timings["matmul"].best
    return {name: timing.best for name, timing in timings.items()}, rate


def epoch_table(options: argparse.Namespace) -> list[Row]:
    """Time the training loop of an epoch, evaluation included, against its bare programs."""
    batches, size = options.batches, options.batch_sizes[0]
    data, valid = standard_case.make_batch(batches * size), standard_case.make_batch(size, seed=1)
    rows: list[Row] = []
    for dtype in options.dtypes:
        for work in options.late:
            game = standard_case.make_game(work, dtype, **options.sizes)
            validate = _validation(game, jax.device_put(valid))
            params = stack_states([standard_case.fresh(game, data)]).params["reranker"]
            one = jax.tree.map(lambda a: a[:size], data)
            calls = {
                "steps": _steps(work, one, dtype, batches, **options.sizes),
                "evaluation": partial(validate, params),
                "loop": _loop(game, data, size, validate),
            }
            best, _ = _best_seconds(calls, options, dtype)
            rows.append(
                {
                    "work": str(work),
                    "batches": f"{batches} x {size}",
                    "dtype": dtype,
                    **{f"{name} s": best[name] for name in calls},
                    "of the bare rate": (best["steps"] + best["evaluation"]) / best["loop"],
                }
            )
    return rows


def _loop(game: Game, data: Batch, size: int, validate: phases.Validate) -> Call:
    """Make a call that trains one more epoch in the loop that trains every row, `phases.fit`."""
    plays = int(game.divergence is not None)
    turns = alternate(len(data.scores) // size, generator_updates=plays, reranker_updates=1)
    phase = phases.Phase(make_epoch(_step(game, size), seeds=seed_axis()), turns)
    progress = phases.start(stack_states([standard_case.fresh(game, data)]), 1)
    held = jax.device_put(data)

    def call() -> phases.Progress:
        nonlocal progress
        plan = phases.StagePlan((phase, None), 0, int(progress.epoch) + 1, 0, size, [0])
        progress = phases.fit(progress, held, plan, validate, lambda progress, record: None)
        return progress

    return call


def _validation(game: Game, valid: Batch) -> phases.Validate:
    def ndcg(params: types.Params) -> types.Array:
        logits = types.apply(game.reranker, params, valid.request, valid.scores)
        values, counts = metrics.build("n", k=6)(logits, valid.labels, valid.request.where)
        return jnp.sum(values * counts) / jnp.maximum(jnp.sum(counts), 1)

    return jax.jit(partial(jax.lax.map, ndcg))


def seeds_table(options: argparse.Namespace) -> list[Row]:
    """Time a step of one seed and of five, one after the other and side by side."""
    rows: list[Row] = []
    for size, dtype in itertools.product(options.batch_sizes, options.dtypes):
        data, steps = standard_case.make_batch(size), _steps_a_call(size, options)
        for work in options.late:
            game = standard_case.make_game(work, dtype, **options.sizes)
            calls = {
                (count, how): _epochs(game, work, data, list(range(count)), steps, how)
                for count, how in ((1, "map"), (5, "map"), (5, "vmap"))
            }
            best, _ = _best_seconds(calls, options, dtype)
            rows += [
                {
                    "work": str(work),
                    "batch": size,
                    "dtype": dtype,
                    "seeds": count,
                    "by": how + (" (chosen)" if how == seed_axis() else ""),
                    "ms/step": 1e3 * best[count, how] / steps,
                    "over one seed": best[count, how] / best[1, "map"],
                }
                for count, how in calls
            ]
    return rows


def score_table(options: argparse.Namespace) -> list[Row]:
    """Time scoring by plain PRM, late entry, by framework, batch size and dtype."""
    rows: list[Row] = []
    for size in options.batch_sizes:
        batch = standard_case.make_batch(size)
        for dtype in options.dtypes:
            calls = {"dnr_jax": _scores(batch, dtype, **options.sizes)}
            for name in options.rivals:
                calls[name] = _torch_scores(batch, dtype, RIVALS[name], **options.sizes)
            seconds, rate = _best_seconds(calls, options, dtype)
            forward = size * standard_case.train_flops(**options.sizes) / 3
            rows += [
                {
                    "framework": name,
                    "batch": size,
                    "dtype": dtype,
                    "ms": 1e3 * seconds[name],
                    "requests/s": size / seconds[name],
                    "times eager": seconds[EAGER] / seconds[name] if EAGER in seconds else "",
                    "of matmul": forward / seconds[name] / rate,
                }
                for name in calls
            ]
    return rows


def _scores(batch: Batch, dtype: str, **sizes: Any) -> Call:
    game = standard_case.make_game(WORKS[0], dtype, **sizes)
    params = standard_case.fresh(game, batch).params["reranker"]
    held, score = jax.device_put(batch), jax.jit(partial(types.apply, game.reranker))
    return partial(score, params, held.request, held.scores)


def _torch_scores(batch: Batch, dtype: str, mode: str | None, **sizes: Any) -> Call:
    from benchmarks import torch_runs

    return torch_runs.scoring(batch, dtype, mode=mode, **sizes)


def _steps_a_call(size: int, options: argparse.Namespace) -> int:
    """Return enough steps to hide the overhead of a call; an epoch has many more."""
    if options.smoke:
        return 2
    return max(2, 2048 // size) if jax.default_backend() == "cpu" else max(8, 16384 // size)


TABLES: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "step": step_table,
    "epoch": epoch_table,
    "seeds": seeds_table,
    "score": score_table,
}


def parser() -> argparse.ArgumentParser:
    made = harness.parser(__doc__ or "")
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("what", choices=TABLES, help="what is timed")
    made.add_argument("--batch-sizes", type=int, nargs="+", default=[512], help="default: 512")
    made.add_argument("--dtypes", nargs="+", default=["float32"], help="float32, bfloat16")
    made.add_argument(
        "--rivals",
        nargs="*",
        choices=RIVALS,
        default=[EAGER],
        help="default: PyTorch eager, to which ratios are taken; none: dnr_jax alone",
    )
    made.add_argument("--repeats", type=int, default=5, help="turns of each call; default: 5")
    made.add_argument("--batches", type=int, default=8, help="of an epoch; default: 8")
    return made


def main(options: argparse.Namespace) -> None:
    """Measure one table and print it."""
    options.sizes, options.works, options.late = {}, WORKS, WORKS[:3]
    if options.smoke:
        options.sizes = standard_case.TINY
        options.works, options.late = (WORKS[0], WORKS[2]), WORKS[:1]
        options.batch_sizes, options.batches, options.repeats = [8], 2, 1
    harness.report(f"throughput: {options.what}", TABLES[options.what](options), options.json)


if __name__ == "__main__":
    main(parser().parse_args(sys.argv[1:]))
