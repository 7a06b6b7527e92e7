"""The training loop of retrievers: epochs until validation stops improving."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from dnr_jax.nn.tables import RowsOf
from dnr_jax.retrievers.descent import LearnerSettings, descend, make_optimizer
from dnr_jax.retrievers.quality import measure
from dnr_jax.retrievers.retriever import (
    FittedRetriever,
    Queries,
    ScoreCatalogue,
    Training,
    named,
    take,
)
from dnr_jax.types import Array, Params

# Queries scored per call: always the same number, so that one program serves all.
SCORED = 256


class Step(NamedTuple):
    """Inputs of an objective in addition to parameters and data.

    Attributes:
      rows: `int32 [B]`, numbers of examples.
      real: `float32 [B]`, 0 for rows that only pad the batch.
      key: the step's own key.
      epoch: `int32`, from 0.
    """

    rows: Any
    real: Any
    key: Array
    epoch: Any


class Objective(Protocol):
    """Loss of a batch, a float32 scalar; a module-level function, compiled once for all fits."""

    def __call__(self, settings: Any, params: Params, data: Any, step: Step, /) -> Array: ...

    def __hash__(self) -> int: ...


class RowsRead(Protocol):
    """The rows that a batch reads of each table; a module-level function, like `Objective`."""

    def __call__(self, params: Params, data: Any, step: Step, /) -> RowsOf: ...

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
    rows_read: RowsRead | None = None,
) -> FittedRetriever:
    """Minimise an objective by Adam, with one shuffled pass over the examples per epoch.

    Args:
      objective: see `Objective`.
      settings: the retriever's settings.
      key: key of the order and of the draws.
      start: initial parameters, the arrays that the objective reads, and the number of examples.
      training: its validation positives choose the epoch.
      scorer: makes the fitted retriever's scores from parameters.
      progress: shows a bar.
      rows_read: lists the table rows that a step trains; None = all rows.
    """
    params, data, count = start
    update, data = _update(objective, settings, rows_read), jax.tree.map(jnp.asarray, data)
    state = (params, make_optimizer(settings).init(params))

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
    return FittedRetriever(scorer(best), report, named(best))


def _batches(key: Array, count: int, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split `count` examples into batches in an order drawn from the key; the last is padded."""
    order = np.asarray(jax.random.permutation(key, count), np.int32)
    fill = -count % size
    rows = np.pad(order, (0, fill)).reshape(-1, size)
    real = np.pad(np.ones(count, np.float32), (0, fill)).reshape(-1, size)
    return list(zip(rows, real, strict=True))


@functools.cache  # compiled once for all folds and seeds
def _update(
    objective: Objective, settings: LearnerSettings, rows_read: RowsRead | None
) -> Callable[..., Any]:
    optimizer = make_optimizer(settings)

    def update(state: Any, data: Any, step: Step) -> tuple[Any, Array]:
        rows = {} if rows_read is None else rows_read(state[0], data, step)
        loss = lambda params: objective(settings, params, data, step)  # noqa: E731
        return descend(optimizer, loss, state, rows)

    return jax.jit(update, donate_argnums=0)


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
    """Multiply `[n, D]` by `[V, D]` in full float32: lower precision would reorder candidates."""
    return jnp.matmul(states, items.T, precision="highest")


def auc(
    scorer: Callable[[Params], ScoreCatalogue], training: Training
) -> Callable[[Params], float]:
    """Make the criterion that chooses the epoch: AUC of the validation positives, by user."""

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

    With a patience of 0 all epochs run. An epoch may overwrite (donate) the previous state.
    """
    best, best_epoch, params = -math.inf, -1, _copy(state[0])
    losses, qualities = [], []
    bar = tqdm(range(epochs), desc="retriever", unit="epoch", disable=not progress)
    for epoch in bar:
        state, loss = step(epoch, state)
        losses.append(float(loss))
        qualities.append(quality(state[0]))
        bar.set_postfix(loss=f"{losses[-1]:.4f}", auc=f"{qualities[-1]:.4f}")
        if not math.isfinite(losses[-1]):
            raise ValueError(
                f"the retriever's loss is {losses[-1]} in epoch {epoch + 1}: lower its "
                "config.retrievers.NAME.learning_rate"
            )
        if qualities[-1] > best:
            best, best_epoch, params = qualities[-1], epoch, _copy(state[0])
        elif 0 < patience <= epoch - best_epoch:
            break
    report = {"best_epoch": best_epoch + 1, "auc_valid": best, "losses": losses}
    return params, report | {"auc_valid_by_epoch": qualities}


def _copy(params: Params) -> Params:
    return jax.tree.map(jnp.copy, params)
