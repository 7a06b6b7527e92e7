"""Export every reranker: each is lowered, written, read back and compared.

    python -m benchmarks.exports

Every model is built at its smallest size with random parameters, lowered once for CPU, CUDA and TPU
with an open batch B and an open number of candidates N >= K, and read back. The read-back program
then scores two batches of other sizes, whose scores are compared with those of the model itself.
Only the CPU computes here: `benchmarks.compile_step` checks that the others compile.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import numpy as np
from jax import export

from benchmarks import harness, standard_case
from dnr_jax import rerankers, types
from dnr_jax.data.encoders import Encoders
from dnr_jax.rerankers import RERANKERS
from dnr_jax.serving import Model, program

K, EVENTS, ITEMS = 3, 5, 40
SIZES = ((2, 8), (3, 12))  # B and N of the batches that are compared
VECTORS = np.random.default_rng(0).normal(size=(ITEMS + 2, 4)).astype(np.float32)
TASK = standard_case.TASK._replace(
    spec=standard_case.SPEC._replace(sizes={"user": 12, "item": ITEMS + 2}),
    slate_size=K,
    item_popularity=np.arange(ITEMS + 2, dtype=np.float32),
    item_vectors=VECTORS,
)


def make_model(name: str) -> Model:
    """Build a reranker at its smallest size, as `dnr_jax.load` would return it."""
    entry = RERANKERS[name]
    known = entry.settings.__dataclass_fields__
    knobs = {knob: value for knob, value in standard_case.TINY.items() if knob in known}
    reranker = rerankers.build(name, TASK, **knobs)
    request, scores = _draw(*SIZES[0])
    params = reranker.init(jax.random.key(0), request, scores) if entry.trains else {}
    card = {"reranker": {"name": name}, "score": "minmax", "task": {"slate_size": K}}
    encoders = Encoders(TASK.spec, SIZES[0][1], EVENTS, {}, {}, {})
    return Model(card, params, encoders, jax.jit(lambda *given: types.rank(reranker, *given)))


def _draw(batch: int, size: int) -> tuple[types.Request, np.ndarray]:
    drawn = standard_case.make_batch(batch, candidates=size, history=EVENTS, slate=K, items=ITEMS)
    user = np.asarray(drawn.request.user) % 10 + 2
    where = np.arange(size) < size - np.arange(batch)[:, None]  # shorter and shorter lists
    request = drawn.request.replace(user=user, where=where)
    return request, np.asarray(drawn.scores) * where


def try_one(name: str) -> dict[str, Any]:
    """Export one model and compare what is read back."""
    row: dict[str, Any] = {"reranker": f"`{name}`"}
    began = time.perf_counter()
    model = make_model(name)
    try:
        content = bytes(program.lower(model).serialize())
    except ValueError as error:
        return row | {"batch": "-", "candidates": "-", "platforms": str(error), "KB": "-"}
    read = export.deserialize(bytearray(content))
    apart = max(_apart(model, read, *size) for size in SIZES)
    return row | {
        "batch": "any",
        "candidates": "any, at least K",
        "platforms": ", ".join(read.platforms),
        "KB": len(content) / 1000,
        "largest difference": apart,
        "s": time.perf_counter() - began,
    }


def _apart(model: Model, read: export.Exported, batch: int, size: int) -> float:
    request, scores = _draw(batch, size)
    arrays = {name: a for name, a in vars(request).items() if a is not None}
    given = program.parameters_of(model), arrays, scores
    mine, other = jax.jit(program.of(model))(*given), jax.jit(read.call)(*given)
    return float(np.abs(np.asarray(mine) - np.asarray(other)).max())


def main(arguments: argparse.Namespace) -> None:
    """Try all rerankers and print."""
    names = ["retriever"] if arguments.smoke else sorted(RERANKERS)
    harness.report("Exports", [try_one(name) for name in names], arguments.json)


if __name__ == "__main__":
    main(harness.parser(__doc__).parse_args())
