"""Scoring as deployed: latency of one request on one core, batch rates, and a batch's metrics.

    python -m benchmarks.scoring

A request has N = 50 candidates and T = 50 events. `one request` is timed on one core, from NumPy
arrays to NumPy logits, with the parameters compiled in (as in an exported model) or passed as
arguments. `batch` is timed on all cores, with its arrays on the device. `metrics` are those of
logits [512, 50], beside four of rax where it is installed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import util
from multiprocessing import get_context
from typing import Any

import jax
import numpy as np

from benchmarks import harness, standard_case
from dnr_jax import metrics, rerankers, types
from dnr_jax.metrics.pairs import count_pairs
from dnr_jax.nn import precision
from dnr_jax.types import Params, Reranker

_seconds = partial(harness.seconds_in_turn, warmup=2)
# Layers over candidates, layers over the history, and width.
MODELS: dict[str, dict[str, Any]] = {
    "2 + 2 layers of 128": standard_case.PRM,
    "3 + 1 layers of 64": standard_case.PRM
    | {"width": 64, "layers": 3, "history_layers": 1, "feed_forward": 64},
}
SMOKE = {
    "1 + 1 layers of 8": standard_case.PRM
    | {"width": 8, "layers": 1, "history_layers": 1, "feed_forward": 8}
}
K = 6


def build(model: str, dtype: str) -> tuple[Reranker, Params]:
    """Build a PRM of `MODELS` or `SMOKE` and draw its parameters."""
    reranker = rerankers.build("prm", standard_case.TASK, **(MODELS | SMOKE)[model])
    batch = standard_case.make_batch(1)
    params = reranker.init(jax.random.key(0), batch.request, batch.scores)
    return precision.compute_in(reranker, dtype), params


def take_one_core() -> None:
    """Bind this process to one core, before JAX counts cores to start its threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def latency(model: str, *, repeats: int) -> list[dict[str, Any]]:
    """Time one request at a time, in this process."""
    reranker, params = build(model, "float32")
    batch = standard_case.make_batch(1)
    score = jax.jit(partial(types.apply, reranker))
    scorers = {
        "parameters compiled in": jax.jit(partial(types.apply, reranker, params)),
        "parameters as arguments": partial(score, params),
    }
    calls = {
        f"{model}, {name}": lambda call=call: np.asarray(call(batch.request, batch.scores))
        for name, call in scorers.items()
    }
    part = "one request, one core"
    return [
        _row(part, name, 1, seconds) for name, seconds in _seconds(calls, repeats=repeats).items()
    ]


def latency_on_one_core(models: Iterable[str], *, repeats: int) -> list[dict[str, Any]]:
    """Run `latency` of each model in a process with one core."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=take_one_core) as pool:
        parts = [pool.submit(latency, model, repeats=repeats) for model in models]
        return [row for part in parts for row in part.result()]


def rates(models: Iterable[str], sizes: tuple[int, ...], *, repeats: int) -> list[dict[str, Any]]:
    """Time whole batches, by model, dtype and size."""
    calls = {}
    for model in models:
        for dtype in precision.DTYPES:
            reranker, params = build(model, dtype)
            calls[f"{model}, {dtype}"] = jax.jit(partial(types.apply, reranker, params))
    rows = []
    for size in sizes:
        batch = jax.device_put(standard_case.make_batch(size))
        given = {name: partial(call, batch.request, batch.scores) for name, call in calls.items()}
        # Few calls of a large batch, many of a small one.
        for name, seconds in _seconds(given, repeats=max(3, repeats * 64 // size)).items():
            rows.append(_row("batch", name, size, seconds))
    return rows


def metric_times(lists: int, *, repeats: int) -> list[dict[str, Any]]:
    """Time the metrics of `lists` lists."""
    batch = standard_case.make_batch(lists)
    logits = np.random.default_rng(1).normal(size=batch.scores.shape).astype(np.float32)
    given = jax.device_put((logits, batch.labels, batch.request.where))
    found: dict[str, Callable[..., Any]] = {
        "H, N, M, F1 and AUC": five,
        f"all {len(metrics.METRICS)}": partial(metrics.evaluate_batch, k=K),
    }
    if util.find_spec("rax"):
        found["rax: precision, ndcg, ap, mrr"] = four_of_rax
    calls = {name: partial(jax.jit(function), *given) for name, function in found.items()}
    return [_row("metrics", name, lists, s) for name, s in _seconds(calls, repeats=repeats).items()]


def five(*lists: jax.Array) -> list[Any]:
    """Compute the paper's metrics from one pass over the pairs."""
    pairs = count_pairs(*lists)
    at_k = [metrics.AT_K[name](pairs, K) for name in ("h", "n", "m", "f1")]
    return [*at_k, metrics.WHOLE["auc"](pairs)]


def four_of_rax(logits: jax.Array, labels: jax.Array, where: jax.Array) -> list[jax.Array]:
    import rax

    functions = (rax.precision_metric, rax.ndcg_metric, rax.ap_metric, rax.mrr_metric)
    return [function(logits, labels, where=where, topn=K) for function in functions]


def _row(part: str, case: str, requests: int, seconds: list[float]) -> dict[str, Any]:
    low, p50, p99 = (1e3 * float(np.quantile(seconds, q)) for q in (0.0, 0.5, 0.99))
    return {
        "part": part,
        "case": case,
        "requests": requests,
        "best ms": low,
        "p50 ms": p50,
        "p99 ms": p99,
        "requests/s at p50": 1e3 * requests / p50,
    }


def main(arguments: argparse.Namespace) -> None:
    """Measure all three parts and print."""
    smoke = arguments.smoke
    models = SMOKE if smoke else MODELS
    rows = [
        *latency_on_one_core(models, repeats=3 if smoke else 2000),
        *rates(models, (4,) if smoke else (64, 512, 4096), repeats=1 if smoke else 40),
        *metric_times(8 if smoke else 512, repeats=1 if smoke else 200),
    ]
    harness.report("Scoring", rows, arguments.json)


if __name__ == "__main__":
    main(harness.parser(__doc__).parse_args())
