"""The loop of the retrievers that learn: epochs, until validation has not risen for a while."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from dnr_jax.retrievers.quality import measure
from dnr_jax.retrievers.retriever import (
    FittedRetriever,
    Queries,
    RetrieverSettings,
    ScoreCatalogue,
    Training,
    take,
)
from dnr_jax.settings import knob
from dnr_jax.types import Array, Params

# Queries scored by one call: of one size, so that one program serves all.
SCORED = 256


@dataclass(frozen=True, kw_only=True)
class LearnerSettings(RetrieverSettings):
    """What the retrievers that `fit_batches` trains have in common."""

    width: int = knob(64, "of the vectors whose inner product is the score", at_least=1)
    epochs: int = knob(60, "the most epochs", at_least=1)
    batch_size: int = knob(512, "examples a step", at_least=1)
    learning_rate: float = knob(1e-3, "Adam's step size", above=0, at_most=10)
    patience: int = knob(
        4, "epochs without a better validation AUC before it stops; 0 = never", at_least=0
    )


class Step(NamedTuple):
    """What an objective is given beside parameters and data.

    Attributes:
      rows: `int32 [B]`, numbers of examples.
      real: `float32 [B]`, 0 for rows that only fill the batch up.
      key: the step's own.
      epoch: `int32`, from 0.
    """

    rows: Any
    real: Any
    key: Array
    epoch: Any


class Objective(Protocol):
    """The loss of a batch, a float32 scalar; a function of a module, compiled once for all fits."""

    def __call__(self, settings: Any, params: Params, data: Any, step: Step, /) -> Array: ...

    def __hash__(self) -> int: ...


def fit_batches(
    objective: Objective,
    settings: LearnerSettings,
    key: Array,
    start: tuple[Params, Any, int],
    training: Training,
    scorer: Callable[[Params], ScoreCatalogue],
    *,
    progress: bool,
) -> FittedRetriever:
    """Minimise an objective by Adam, a shuffled pass over the examples an epoch.

    Args:
      objective: see there.
      settings: the retriever's.
      key: of order and draws.
      start: initial parameters, the arrays that the objective reads, and the number of examples.
      training: its validation positives choose the epoch.
      scorer: makes the fitted retriever's scores of parameters.
      progress: shows a bar.
    """
    params, data, count = start
    update, data = _update(objective, settings), jax.tree.map(jnp.asarray, data)
    state = (params, optax.adam(settings.learning_rate).init(params))

    def epoch(number: int, state: Any) -> tuple[Any, Array]:
        order_key, step_key = jax.random.split(jax.random.fold_in(key, number))
        losses = []
        for n, (rows, real) in enumerate(_batches(order_key, count, settings.batch_size)):
            step = Step(rows, real, jax.random.fold_in(step_key, n), np.int32(number))
            state, loss = update(state, data, step)
            losses.append(loss * real.sum())
        return state, jnp.stack(losses).sum() / count

    limits = (settings.epochs, settings.patience)
    best, report = until_best(epoch, state, auc(scorer, training), *limits, progress)
    return FittedRetriever(scorer(best), report)


def _batches(key: Array, count: int, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Deal `count` examples to batches in an order of the key's; the last one is filled up."""
    order = np.asarray(jax.random.permutation(key, count), np.int32)
    fill = -count % size
    rows = np.pad(order, (0, fill)).reshape(-1, size)
    real = np.pad(np.ones(count, np.float32), (0, fill)).reshape(-1, size)
    return list(zip(rows, real, strict=True))


@functools.cache  # compiled once for all folds and seeds
def _update(objective: Objective, settings: LearnerSettings) -> Callable[..., Any]:
    optimizer = optax.adam(settings.learning_rate)

    def update(state: Any, data: Any, step: Step) -> tuple[Any, Array]:
        params, memory = state

        def loss(params: Params) -> Array:
            return objective(settings, params, data, step)

        value, gradient = jax.value_and_grad(loss)(params)
        updates, memory = optimizer.update(gradient, memory, params)
        return (optax.apply_updates(params, updates), memory), value

    return jax.jit(update)


def by_parts(score: Callable[[Queries], Array]) -> ScoreCatalogue:
    """Score any number of queries, `SCORED` at a time."""

    def whole(queries: Queries) -> np.ndarray:
        parts = []
        for start in range(0, len(queries.user), SCORED):
            part = take(queries, np.arange(start, min(start + SCORED, len(queries.user))))
            size = len(part.user)
            filled = take(part, np.minimum(np.arange(SCORED), size - 1))
            parts.append(np.asarray(score(filled))[:size])
        return np.concatenate(parts)

    return whole


def product(states: Array, items: Array) -> Array:
    """Multiply `[n, D]` by `[V, D]` in full float32: fewer digits would reorder candidates."""
    return jnp.matmul(states, items.T, precision="highest")


def auc(
    scorer: Callable[[Params], ScoreCatalogue], training: Training
) -> Callable[[Params], float]:
    """Make the function that an epoch is chosen by: AUC of the validation positives, by user."""

    def quality(params: Params) -> float:
        train, valid, queries, _ = training
        return measure(scorer(params), queries, train, valid, **training.counts)["auc_user"]

    return quality


def until_best(
    step: Callable[[int, Any], tuple[Any, Array]],
    state: Any,
    quality: Callable[[Params], float],
    epochs: int,
    patience: int,
    progress: bool,
) -> tuple[Params, dict[str, Any]]:
    """Run epochs until `quality` has not risen for `patience` of them; return the best parameters.

    With a patience of 0 all epochs run.
    """
    best, best_epoch, params = -math.inf, -1, state[0]
    losses, qualities = [], []
    bar = tqdm(range(epochs), desc="retriever", unit="epoch", disable=not progress)
    for epoch in bar:
        state, loss = step(epoch, state)
        losses.append(float(loss))
        qualities.append(quality(state[0]))
        bar.set_postfix(loss=f"{losses[-1]:.4f}", auc=f"{qualities[-1]:.4f}")
        if not math.isfinite(losses[-1]):
            raise ValueError(
                f"the retriever's loss is {losses[-1]} in epoch {epoch + 1}: lower "
                "retriever.learning_rate"
            )
        if qualities[-1] > best:
            best, best_epoch, params = qualities[-1], epoch, state[0]
        elif 0 < patience <= epoch - best_epoch:
            break
    report = {"best_epoch": best_epoch + 1, "auc_valid": best, "losses": losses}
    return params, report | {"auc_valid_by_epoch": qualities}
