"""How a retriever's step time grows with the catalogue, for each way to update its tables.

  python -m benchmarks.retriever_steps

Only the number of items grows; users, batch and history stay fixed. A call is 16 steps on batches
drawn uniformly, so hardly any row is read twice: the most expensive case for single-row updates.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from dnr_jax.nn.layers import MLP
from dnr_jax.nn.tables import UPDATES
from dnr_jax.retrievers import descent
from dnr_jax.retrievers.descent import TableSettings
from dnr_jax.retrievers.epochs import Step
from dnr_jax.retrievers.retriever import Queries
from dnr_jax.retrievers.tables import Features
from dnr_jax.types import Array

# Imported by name: in the package, functions of the same names hide these modules.
matrix_factorization, two_tower = (
    importlib.import_module(f"dnr_jax.retrievers.{name}")
    for name in ("matrix_factorization", "two_tower")
)
USERS, WIDTH, HISTORY, STEPS = 10_000, 64, 50, 16
Row = dict[str, Any]


class Work(NamedTuple):
    """A retriever's parameters, its batches `[STEPS, ...]`, and the step's two functions.

    Attributes:
      settings, params, data, batches: what the functions are given.
      loss: `(params, data, batch) -> scalar`.
      rows: `(params, data, batch)` -> the rows that the loss reads.
    """

    settings: TableSettings
    params: Any
    data: Any
    batches: Any
    loss: Callable[..., Array]
    rows: Callable[..., Any]


def factorization(updates: str, items: int, batch: int) -> Work:
    draw = np.random.default_rng(0)
    settings = matrix_factorization.MatrixFactorizationSettings(width=WIDTH, tables=updates)
    ids = draw.integers(2, (USERS, items, items), (STEPS, batch, 3)).astype(np.int32)
    batches = matrix_factorization.Triples(*np.moveaxis(ids, 2, 0), np.ones(ids.shape[:2], bool))
    params = {
        "users": table(USERS),
        "items": table(items),
        "bias": drawn(items),
    }

    def loss(params: Any, data: Any, batch: Any) -> Array:
        return matrix_factorization.objective(settings, params, batch)

    def rows(params: Any, data: Any, batch: Any) -> Any:
        return matrix_factorization.rows_read(params, batch)

    return Work(settings, params, None, batches, loss, rows)


def towers(updates: str, items: int, batch: int) -> Work:
    """Each example is a request of its own, with one id of its user and of each item."""
    draw, count = np.random.default_rng(0), STEPS * batch
    settings = two_tower.TwoTowerSettings(width=WIDTH, tables=updates)
    history = draw.integers(2, items, (count, HISTORY)).astype(np.int32)
    user = draw.integers(2, USERS, count).astype(np.int32)
    known = Features(*(np.arange(n, dtype=np.int32)[:, None] for n in (USERS, items)))
    item = draw.integers(2, items, count).astype(np.int32)
    queries = Queries(user, history, np.full_like(history, 3))
    numbers = np.arange(count, dtype=np.int32)
    data = two_tower.Examples(numbers, item, np.zeros(items, np.float32), queries, known)
    network = MLP((settings.hidden,), WIDTH)
    shapes = jax.eval_shape(
        lambda: network.init(jax.random.key(0), jnp.zeros((1, 2 * WIDTH)), drop=lambda x: x)
    )
    tower = jax.tree.map(lambda leaf: drawn(*leaf.shape), shapes["params"])
    sides = {"users": [table(USERS)], "items": [table(items)], "feedback": table(4)}
    params = {"tables": sides | {"bias": drawn(items)}, "tower": tower}
    keys = jax.random.split(jax.random.key(1), STEPS)
    real, zeros = np.ones((STEPS, batch), np.float32), np.zeros(STEPS, np.int32)
    batches = Step(numbers.reshape(STEPS, batch), real, keys, zeros)

    def loss(params: Any, data: Any, batch: Any) -> Array:
        return two_tower.objective(settings, params, data, batch)

    return Work(settings, params, data, batches, loss, two_tower.rows_read)


def table(rows: int) -> Array:
    return drawn(rows, WIDTH)


def drawn(*shape: int) -> Array:
    """Draw with NumPy, which compiles nothing."""
    random = np.random.default_rng(shape[0])
    return jnp.asarray(0.05 * random.standard_normal(shape, np.float32))


class Training:
    """Repeated calls of `STEPS` steps, each continuing from the last one."""

    def __init__(self, work: Work):
        optimizer = descent.make_optimizer(work.settings)
        self._state = (work.params, optimizer.init(work.params))
        self._inputs = jax.tree.map(jnp.asarray, (work.data, work.batches))
        dense = work.settings.tables == "dense"

        def run(state: Any, data: Any, batches: Any) -> tuple[Any, Array]:
            def step(state: Any, batch: Any) -> tuple[Any, Array]:
                rows = {} if dense else work.rows(state[0], data, batch)
                return descent.descend(
                    optimizer, lambda params: work.loss(params, data, batch), state, rows
                )

            return jax.lax.scan(step, state, batches)

        self._run = jax.jit(run, donate_argnums=0)

    def __call__(self) -> Array:
        self._state, losses = self._run(self._state, *self._inputs)
        return losses


RETRIEVERS = {"matrix_factorization": (factorization, 2048), "two_tower": (towers, 512)}


def measure(smoke: bool) -> list[Row]:
    """Time a step of each retriever at each size."""
    sizes = [100] if smoke else [10**4, 10**5, 10**6, 4 * 10**6]
    rows: list[Row] = []
    for name, (make, batch) in RETRIEVERS.items():
        for updates in UPDATES:
            first = 0.0
            for items in sizes:
                run = Training(make(updates, items, 8 if smoke else batch))
                seconds = harness.time_calls(run, repeats=3).best / STEPS
                first = first or seconds
                row = {"retriever": name, "updates": updates, "items": items}
                rows.append(row | {"ms/step": 1e3 * seconds, "of first": seconds / first})
    return rows


def main(argv: list[str]) -> None:
    options = harness.parser(__doc__ or "").parse_args(argv)
    rows = measure(options.smoke)
    harness.report("steps of retrievers against the catalogue", rows, options.json)


if __name__ == "__main__":
    main(sys.argv[1:])
