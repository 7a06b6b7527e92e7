"""The two phases of DNR training, epoch by epoch; the best epoch of each seed is kept.

Epochs < lambda_e train the reranker against the heuristic generator. Epochs >= lambda_e alternate
it with the learned one (DNR, arXiv 2509.18736, section on training).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dnr_jax.training.epoch import Alternation, Epoch, check_finite, epoch_means, rows_of_epoch
from dnr_jax.training.step import TrainState
from dnr_jax.types import Array, Batch, Params


@struct.dataclass
class Progress:
    """What a killed run needs to resume: arrays only, with leading axis S (seeds).

    Attributes:
      states: the players after the last finished epoch.
      best_params: reranker parameters of the best epoch so far.
      best_value: `float32 [S]`, what `validate` returned for them; -inf before the first epoch.
      best_epoch: `int32 [S]`, number of the best epoch, from 1; 0 before the first.
      epoch: `int32`, epochs finished.
    """

    states: TrainState
    best_params: Params
    best_value: Array
    best_epoch: Array
    epoch: Array


class Phase(NamedTuple):
    """An epoch program, and which player updates on which batch in it."""

    run: Epoch
    updates: Alternation


class StagePlan(NamedTuple):
    """How long to train, and on what.

    Attributes:
      phases: heuristic and learned phase; the second is None when no generator is learned.
      lambda_e: epochs of the first phase, >= 0.
      epochs: epochs of both phases together, >= 1.
      patience: stop when no seed has improved for this many epochs, which count from `lambda_e` on
        if a generator is learned; 0 = never.
      batch_size: requests per update.
      seeds: seed numbers, one for each row of the states.
    """

    phases: tuple[Phase, Phase | None]
    lambda_e: int
    epochs: int
    patience: int
    batch_size: int
    seeds: list[int]


Record = dict[str, np.ndarray]
Validate = Callable[[Params], Array]
OnEpoch = Callable[[Progress, Record], Any]


@partial(jax.jit, static_argnums=1)
def start(states: TrainState, seeds: int) -> Progress:
    """Wrap freshly initialised states; best parameters are copied, because states are donated."""
    return Progress(
        states=states,
        best_params=jax.tree.map(jnp.copy, states.params["reranker"]),
        best_value=jnp.full(seeds, -jnp.inf, jnp.float32),
        best_epoch=jnp.zeros(seeds, jnp.int32),
        epoch=jnp.zeros((), jnp.int32),
    )


def fit(
    progress: Progress, data: Batch, plan: StagePlan, validate: Validate, on_epoch: OnEpoch
) -> Progress:
    """Train from `progress` to the end of `plan`; resuming from a checkpoint is the same call.

    Args:
      progress: from `start` or a checkpoint; its states are donated.
      data: the training split on the device.
      plan: phases, length and batch size.
      validate: maps stacked reranker parameters to the validation metric that is maximised,
        `float32 [S]`.
      on_epoch: called after every epoch with the progress and the epoch's record (`float32 [S]`
        per name), to write checkpoints and logs.

    Returns:
      The progress after the last epoch.

    Raises:
      NonFiniteError: a loss term or gradient is not finite; `on_epoch` is not called for that
        epoch.
    """
    while not finished(progress, plan):
        epoch = int(progress.epoch)
        states, record = _run_epoch(progress.states, data, plan, epoch)
        value = validate(states.params["reranker"])
        progress = _keep_best(progress, states, value)
        on_epoch(progress, record | {"valid": np.asarray(value)})
    return progress


def compile_phase(phase: Phase, plan: StagePlan, states: TrainState, data: Batch) -> None:
    """Compile a phase's jitted epoch program for arrays of these shapes, before `fit` needs it."""
    epoch: Any = phase.run
    rows = (len(plan.seeds), len(phase.updates.turns), plan.batch_size)
    program = epoch.lower(states, data, jax.ShapeDtypeStruct(rows, np.int32), phase.updates.turns)
    program.compile()


def finished(progress: Progress, plan: StagePlan) -> bool:
    """Return whether all epochs are done or patience has run out (never before phase 2)."""
    epoch = int(progress.epoch)
    if epoch >= plan.epochs:
        return True
    phase_start = plan.lambda_e if plan.phases[1] is not None else 0
    last_improvement = max(int(np.asarray(progress.best_epoch).max()), phase_start)
    return 0 < plan.patience <= epoch - last_improvement


def _run_epoch(
    states: TrainState, data: Batch, plan: StagePlan, epoch: int
) -> tuple[TrainState, Record]:
    learned = plan.phases[1]
    phase = learned if learned is not None and epoch >= plan.lambda_e else plan.phases[0]
    count = data.scores.shape[0]
    rows = rows_of_epoch(count, plan.batch_size, phase.updates, seeds=plan.seeds, epoch=epoch)
    first_step = int(np.asarray(states.step)[0])  # read before the states are donated
    states, terms = phase.run(states, data, rows, phase.updates.turns)
    check_finite(terms, first_step=first_step, seeds=plan.seeds)
    return states, epoch_means(terms, phase.updates.turns)


@jax.jit
def _keep_best(progress: Progress, states: TrainState, value: Array) -> Progress:
    better = value > progress.best_value

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    epoch = progress.epoch + 1
    return Progress(
        states=states,
        best_params=jax.tree.map(choose, states.params["reranker"], progress.best_params),
        best_value=choose(value, progress.best_value),
        best_epoch=choose(jnp.full_like(progress.best_epoch, epoch), progress.best_epoch),
        epoch=epoch,
    )
