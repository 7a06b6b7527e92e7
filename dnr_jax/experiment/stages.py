"""One stage of a row's training: its position, epochs, programs and first state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax.data import loader
from dnr_jax.experiment.assembly import PLAIN, Job, first_request
from dnr_jax.experiment.trials import Trial, trials_of
from dnr_jax.training import phases, sharding
from dnr_jax.training.epoch import alternate, make_epoch, seed_axis, stack_states
from dnr_jax.training.optimizers import PLAYERS
from dnr_jax.training.parts import part_size
from dnr_jax.training.sparse import make_sparse_step
from dnr_jax.training.step import Game, TrainState, init_state
from dnr_jax.training.stream import streamed
from dnr_jax.types import Noise, Params, Stage


class StageRun(NamedTuple):
    """A stage of a row: its position, and the epochs planned for earlier stages."""

    job: Job
    stage: Stage
    number: int
    last: bool
    offset: int

    @property
    def label(self) -> str:
        """The name for readers."""
        label = self.job.row.label
        return label if self.last else f"{label}: {self.stage.name}"

    @property
    def folder(self) -> Path:
        """The stage's checkpoints; those of the last are the row's."""
        folder = self.job.run.checkpoints(self.job.row.key)
        return folder if self.last else folder / self.stage.name

    @property
    def epochs(self) -> int:
        """The planned epochs: its share of `config.train.epochs`, at least one."""
        return max(1, round(self.stage.share * self.job.row.train.epochs))

    @property
    def trials(self) -> list[Trial]:
        """The trainings side by side."""
        return trials_of(self.job.row)


def stages_of(job: Job) -> list[StageRun]:
    """List the stages of a row in order."""
    runs: list[StageRun] = []
    stages = job.parts.stages
    for number, stage in enumerate(stages):
        offset = sum(run.epochs for run in runs)
        runs.append(StageRun(job, stage, number, number == len(stages) - 1, offset))
    return runs


def make_phases(run: StageRun) -> phases.StagePlan:
    """Lay out both phases of a stage.

    Only a stage without a loss of its own has a learned phase.
    """
    train, parts = run.job.row.train, run.job.parts
    learned = None
    if parts.generator is not None and train.lambda_e < train.epochs:
        learned = _phase(
            run,
            parts.generator,
            generator_updates=train.generator_updates,
            reranker_updates=train.reranker_updates,
        )
    heuristic = _phase(run, parts.heuristic, generator_updates=0, reranker_updates=1)
    return phases.StagePlan(
        phases=(heuristic, learned),
        lambda_e=train.lambda_e,
        epochs=run.epochs,
        patience=train.patience,
        batch_size=train.batch_size,
        seeds=[trial.seed for trial in run.trials],
    )


def _phase(
    run: StageRun, noise: Noise | None, *, generator_updates: int, reranker_updates: int
) -> phases.Phase:
    row, parts = run.job.row, run.job.parts
    plays = generator_updates > 0
    divergence = parts.divergence if plays else None
    game = Game(parts.reranker, noise, divergence, run.stage.loss, row.objective)
    optimizer = parts.optimizer(groups=run.stage.groups)
    step = make_sparse_step(
        game,
        optimizer,
        spec=parts.task.spec,
        players=tuple(name for name in PLAYERS if getattr(row.optim, name).tables != "dense"),
        plays=plays,
        part=_micro_batch(run.job),
    )
    step = sharding.split_step(parts.layout, step)
    batches = -(-len(run.job.prepared.splits["train"].request_id) // row.train.batch_size)
    turns = alternate(
        batches, generator_updates=generator_updates, reranker_updates=reranker_updates
    )
    if not row.train.stream:
        return phases.Phase(make_epoch(step, seeds=seed_axis()), turns)
    epoch = make_epoch(step, seeds=seed_axis(), take=loader.pick)
    put = partial(sharding.put_batches, parts.layout)
    return phases.Phase(streamed(epoch, turns, batches=row.train.stream, put=put), turns)


def _micro_batch(job: Job) -> int | None:
    """Choose how many requests' activations are held at once; several devices split them anyway."""
    if not job.parts.layout.alone:
        return None
    return job.row.train.micro_batch or part_size(job.row.train.batch_size)


def first_states(run: StageRun, before: phases.Progress | None) -> TrainState:
    """Stack the first states of all trials; a trial's state does not depend on the others.

    Args:
      run: the stage.
      before: the result of the previous stage; None for the first.
    """
    parts = run.job.parts
    make, earlier = partial(sharding.build, parts.layout, _init(run)), _earlier(run)
    fresh = {seed: make(jax.random.key(seed), *earlier) for seed in run.job.row.seeds}
    rated = [replace(fresh[trial.seed], rate=np.float32(trial.rate)) for trial in run.trials]
    states: TrainState = stack_states(rated)
    if before is not None or run.stage.begin is not None:
        learned = states.params["reranker"] if before is None else before.best_params
        states = _go_on(states, learned, run.number, run.stage.begin)
    return states


def abstract_states(run: StageRun) -> TrainState:
    """Return the shapes and types of `first_states`; nothing is computed."""
    one = jax.eval_shape(_init(run), jax.random.key(0), *_earlier(run))
    states: TrainState = jax.eval_shape(stack_states, [one] * len(run.trials))
    return states


def _init(run: StageRun) -> Callable[..., TrainState]:
    """Make the map from a seed's key, and an earlier model's parameters, to its first state."""
    parts, example = run.job.parts, first_request(run.job.prepared)
    optimizer = parts.optimizer(groups=run.stage.groups)

    def init(key: jax.Array, *earlier: Params) -> TrainState:
        state = init_state(key, parts.reranker, parts.generator, optimizer, example)
        if parts.graft is None:
            return state
        grown = parts.graft.put(state.params["reranker"], *earlier)
        return replace(state, params=state.params | {"reranker": grown})

    return init


def _earlier(run: StageRun) -> tuple[Params, ...]:
    graft = run.job.parts.graft
    return () if graft is None else (graft.params,)


def untrained(job: Job) -> phases.Progress:
    """Return the progress of a row before its first stage."""
    run = StageRun(job, PLAIN[0], 0, True, 0)
    return phases.start(first_states(run, None), len(run.trials))


@partial(jax.jit, static_argnums=3)
def _go_on(
    states: TrainState, learned: Params, stage: int, begin: Callable[[Params], Params] | None
) -> TrainState:
    """Start a stage from the parameters of the previous one, with its own keys."""
    keys = jax.vmap(lambda key: jax.random.fold_in(key, stage))(states.key)
    learned = learned if begin is None else jax.vmap(begin)(learned)
    # Copies, as the states are donated: two leaves may not share what one of them is made of.
    learned = jax.tree.map(jnp.copy, learned)
    return replace(states, params=states.params | {"reranker": learned}, key=keys)
