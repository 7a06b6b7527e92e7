"""The train steps that `benchmarks.compile_step` compiles, as programs of an epoch.

Those of `benchmarks.throughput`, one on the rows of large tables alone, and the stages of any
reranker.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import standard_case
from benchmarks.standard_case import ITEMS, WORKS
from dnr_jax import rerankers
from dnr_jax.rerankers import RERANKERS
from dnr_jax.training.epoch import alternate, make_epoch, stack_states
from dnr_jax.training.optimizers import OptimizerSettings, two_player_optimizer
from dnr_jax.training.sparse import make_sparse_step
from dnr_jax.training.step import Game, TrainState, init_state
from dnr_jax.types import Stage, Task

STEPS = 4
DNR = Stage("DNR phase 2", None)
PLAIN = Stage("cross-entropy", None)


class Case(NamedTuple):
    """A step of PRM, by its index into `standard_case.WORKS`, or of a reranker, by its name.

    Attributes:
      work: which.
      batch, dtype, seeds: requests, of activations, side by side.
      tables: how tables are updated.
      items: of the catalogue.
      stage: of the reranker.
    """

    work: int | str
    batch: int
    dtype: str
    seeds: int
    tables: str = "dense"
    items: int = ITEMS
    stage: Stage = DNR

    def about(self) -> dict[str, Any]:
        """Describe the case for a row of the table."""
        named = isinstance(self.work, str)
        work = f"{self.work}, {self.stage.name}" if named else str(WORKS[int(self.work)])
        fields = {name: value for name, value in self._asdict().items() if name != "stage"}
        return fields | {"work": work}


CASES = (
    Case(0, 512, "float32", 1),
    Case(0, 4096, "bfloat16", 1),
    Case(2, 512, "float32", 1),
    Case(2, 512, "float32", 5),
    Case(2, 512, "float32", 1, "rowwise_adagrad", 10**6),
)
SMOKE_CASES = (Case(2, 8, "bfloat16", 2), Case(0, 8, "float32", 1, "rowwise_adagrad"))


def chosen(names: list[str], cases: tuple[Case, ...]) -> list[Case]:
    """List the stages of rerankers, with the first case's batch; `cases` if none is named."""
    if not names:
        return list(cases)
    task = _task(ITEMS)
    return [
        Case(name, cases[0].batch, "float32", 1, stage=stage)
        for name in names
        for stage in (*(rerankers.build(name, task).stages or (PLAIN,)), DNR)
    ]


def trace(case: Case, sharding: Any, **sizes: Any) -> Any:
    """Trace an epoch of a case, with arguments given only by their shapes."""
    game, batch = _game(case, sizes), standard_case.make_batch(case.batch, items=case.items)
    adam = OptimizerSettings(tables=case.tables)
    optimizer = two_player_optimizer(
        adam, adam, steps_per_epoch=(10_000, 10_000), groups=case.stage.groups
    )
    plays = game.divergence is not None
    sparse = () if case.tables == "dense" else ("reranker", *["generator"] * plays)
    spec = _task(case.items).spec
    step = make_sparse_step(game, optimizer, spec=spec, players=sparse, plays=plays)
    turns = jnp.asarray(alternate(STEPS, generator_updates=int(plays), reranker_updates=1).turns)
    rows = jnp.zeros((case.seeds, len(turns), case.batch), jnp.int32)

    def fresh(seed: int) -> TrainState:
        first = jax.tree.map(lambda a: jnp.asarray(a[:1]), batch)
        noise = game.noise if plays else None
        return init_state(jax.random.key(seed), game.reranker, noise, optimizer, first)

    states = jax.eval_shape(lambda: stack_states([fresh(seed) for seed in range(case.seeds)]))
    shapes = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding),
        (states, batch, rows, turns),
    )
    return jax.jit(make_epoch(step, seeds="vmap")).trace(*shapes)


def _game(case: Case, sizes: dict[str, Any]) -> Game:
    """Build the players of a case, PRM or another reranker in its place."""
    task = _task(case.items)
    if not isinstance(case.work, str):
        return standard_case.make_game(WORKS[case.work], case.dtype, task=task, **sizes)
    known = RERANKERS[case.work].settings.__dataclass_fields__
    own = {name: value for name, value in sizes.items() if name in known}
    reranker = rerankers.build(case.work, task, **own)
    learned = standard_case.make_game(WORKS[2], case.dtype, task=task)
    if case.stage is DNR:
        return learned._replace(reranker=reranker)
    stages = {stage.name: stage for stage in reranker.stages}
    loss = stages.get(case.stage.name, PLAIN).loss
    return Game(reranker, None, None, loss, learned.objective)


def _task(items: int) -> Task:
    """Make everything that any reranker may need to know about a catalogue."""
    spec = standard_case.SPEC
    spec = spec._replace(sizes=dict(spec.sizes) | {"item": items + 2})
    vectors = np.random.default_rng(0).normal(size=(items + 2, 16)).astype(np.float32)
    popularity = np.arange(items + 2, dtype=np.float32)
    return Task(spec, item_popularity=popularity, item_vectors=vectors)
