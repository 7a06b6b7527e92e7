"""Matrix factorisation: s(u, i) = p_u . q_i + b_i, trained by BPR or by binary cross-entropy.

Rendle et al. 2009, arXiv 1205.2618. Negatives are items that the user was not shown; the paper
draws them from all items without positive feedback, those shown and disliked included.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax.data.encoders import KNOWN
from dnr_jax.data.lists import Events
from dnr_jax.nn.tables import RowsOf, distinct
from dnr_jax.retrievers import tables
from dnr_jax.retrievers.descent import TableSettings, check_memory, descend, make_optimizer
from dnr_jax.retrievers.epochs import auc, until_best
from dnr_jax.retrievers.retriever import (
    FittedRetriever,
    Retriever,
    ScoreCatalogue,
    State,
    Training,
    named,
)
from dnr_jax.settings import knob
from dnr_jax.types import Array, Params

INITIAL_SCALE = 0.05
# A drawn negative that the user has already seen is redrawn, at most this many times.
NEGATIVE_DRAWS = 8


class Met(NamedTuple):
    """The items each user saw in training; its size is that of the log, not users times items.

    Attributes:
      items: `int32 [M]`, sorted for each user.
      start: `int32 [U + 1]`, where each user's items begin.
      rounds: `int32`, steps of a binary search among the items of the most active user.
    """

    items: Array
    start: Array
    rounds: Array


class Examples(NamedTuple):
    """Training positives on the device, and the items each user saw.

    Attributes:
      user, item: `int32 [P]`, the positives.
      met: the items seen, by user.
      item_count: V.
    """

    user: Array
    item: Array
    met: Met
    item_count: Array


def bpr(positive: Array, negative: Array) -> Array:
    """-log sigma(s_ui - s_uj), `[B]` each (Rendle et al. 2009, arXiv 1205.2618, BPR-Opt)."""
    return jax.nn.softplus(negative - positive)


def bce(positive: Array, negative: Array) -> Array:
    """-log sigma(s_ui) - log(1 - sigma(s_uj)), `[B]` each: one sampled negative per positive."""
    return jax.nn.softplus(-positive) + jax.nn.softplus(negative)


LOSSES: dict[str, Callable[[Array, Array], Array]] = {"bpr": bpr, "bce": bce}


@dataclass(frozen=True, kw_only=True)
class MatrixFactorizationSettings(TableSettings):
    """Settings of matrix factorisation."""

    loss: str = knob("bpr", "of a positive and a sampled negative: bpr | bce", one_of=LOSSES)
    width: int = knob(128, "latent factors", at_least=1)
    batch_size: int = knob(2048, "positives per step", at_least=1)
    decay: float = knob(
        0.01, "L2: decay / 2 * |row|^2 per example, on the rows of a batch", at_least=0, at_most=1e3
    )


def matrix_factorization(settings: MatrixFactorizationSettings) -> Retriever:
    """Make the retriever; the parameters of its best epoch on validation are kept."""

    def fit(key: Array, training: Training, *, progress: bool) -> FittedRetriever:
        training.check()
        init_key, epoch_key = jax.random.split(key)
        init = partial(_init, init_key, **training.counts, width=settings.width)
        check_memory("matrix_factorization", settings, jax.eval_shape(init))
        examples = _examples(training.train, **training.counts)
        steps = math.ceil(examples.user.size / settings.batch_size)
        rows = min(settings.batch_size, examples.user.size)
        run = _epoch(settings, steps, rows)
        params = init()
        state = (params, make_optimizer(settings).init(params))

        def step(epoch: int, state: Any) -> tuple[Any, Array]:
            return run(jax.random.fold_in(epoch_key, epoch), state, examples)

        limits = (settings.epochs, settings.patience)
        params, report = until_best(step, state, auc(_scorer, training), *limits, progress)
        return FittedRetriever(_scorer(params), report, named(params))

    return Retriever(fit, restore=restore)


def _examples(train: Events, user_count: int, item_count: int) -> Examples:
    positive = train.label > 0.5
    counts = np.bincount(train.user, minlength=user_count)
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    items = train.item[np.lexsort((train.item, train.user))].astype(np.int32)
    met = Met(*map(jnp.asarray, (items, start, int(counts.max()).bit_length())))
    user, item = (jnp.asarray(c[positive]) for c in (train.user, train.item))
    return Examples(user, item, met, jnp.asarray(item_count))


def _init(key: Array, *, user_count: int, item_count: int, width: int) -> Params:
    user_key, item_key = jax.random.split(key)
    return {
        "users": INITIAL_SCALE * jax.random.normal(user_key, (user_count, width)),
        "items": INITIAL_SCALE * jax.random.normal(item_key, (item_count, width)),
        "bias": jnp.zeros(item_count),
    }


def unmet_items(key: Array, examples: Examples, users: Array) -> Array:
    """Draw for each of `users` `int32 [B]` an item that the user did not see in training.

    Uniform over unseen items; a user who saw nearly all may, after `NEGATIVE_DRAWS` tries, get a
    seen item.
    """
    shape = (NEGATIVE_DRAWS, users.size)
    drawn = jax.random.randint(key, shape, KNOWN, examples.item_count)
    fresh = ~has_met(examples.met, users, drawn)
    return jnp.take_along_axis(drawn, jnp.argmax(fresh, axis=0)[None], axis=0)[0]


def has_met(met: Met, users: Array, items: Array) -> Array:
    """Find by binary search whether users `int32 [B]` saw items `int32 [n, B]`: `bool [n, B]`."""
    end = met.start[users + 1]
    low, high = (jnp.broadcast_to(bound, items.shape) for bound in (met.start[users], end))

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) // 2
        below = (low < high) & (met.items[middle] < items)
        return jnp.where(below, middle + 1, low), jnp.where(below, high, middle)

    place, _ = jax.lax.fori_loop(0, met.rounds, halve, (low, high))
    return (place < end) & (met.items[place] == items)


class Triples(NamedTuple):
    """A batch of positives, each with its negative.

    Attributes:
      user, item, other: `int32 [B]`; `other` is the negative.
      real: `bool [B]`, False for padding of the batch.
    """

    user: Array
    item: Array
    other: Array
    real: Array


def objective(settings: MatrixFactorizationSettings, params: Params, batch: Triples) -> Array:
    """Average the loss of a batch, including L2."""
    p = tables.at(params["users"], batch.user)
    q, r = (tables.at(params["items"], ids) for ids in (batch.item, batch.other))
    positive = jnp.sum(p * q, -1) + tables.at(params["bias"], batch.item)
    negative = jnp.sum(p * r, -1) + tables.at(params["bias"], batch.other)
    squares = jnp.sum(p * p + q * q + r * r, -1)
    each = LOSSES[settings.loss](positive, negative) + 0.5 * settings.decay * squares
    return jnp.sum(each * batch.real) / jnp.sum(batch.real)


def rows_read(params: Params, batch: Triples) -> RowsOf:
    """Return the rows that `objective` reads, including those of padding."""
    users, items = len(params["users"]), len(params["items"])
    own = distinct(jnp.append(batch.item, batch.other), rows=items)
    return {("users",): distinct(batch.user, rows=users), ("items",): own, ("bias",): own}


@functools.cache  # compiled once for all seeds
def _epoch(settings: MatrixFactorizationSettings, steps: int, rows: int) -> Callable[..., Any]:
    """Make the program of one epoch: every positive once, in a fresh order."""
    optimizer, dense = make_optimizer(settings), settings.tables == "dense"

    def run(key: Array, state: Any, examples: Examples) -> tuple[Any, Array]:
        order_key, step_key = jax.random.split(key)
        count = examples.user.size
        order = jax.random.permutation(order_key, count)
        order = jnp.pad(order, (0, steps * rows - count), constant_values=-1)

        def step(state: Any, inputs: tuple[Array, Array]) -> tuple[Any, Array]:
            index, batch = inputs
            user, item = examples.user[batch], examples.item[batch]
            other = unmet_items(jax.random.fold_in(step_key, index), examples, user)
            triples = Triples(user, item, other, batch >= 0)
            read = {} if dense else rows_read(state[0], triples)
            loss = lambda params: objective(settings, params, triples)  # noqa: E731
            return descend(optimizer, loss, state, read)

        batches = order.reshape(steps, rows)
        state, values = jax.lax.scan(step, state, (jnp.arange(steps), batches))
        return state, values.mean()

    return jax.jit(run, donate_argnums=1)


@jax.jit
def _scores(params: Params, users: Array) -> Array:
    # In full float32 everywhere: with lower precision the order would depend on the device.
    products = jnp.matmul(params["users"][users], params["items"].T, precision="highest")
    return products + params["bias"]


def restore(state: State) -> ScoreCatalogue:
    """Score by kept `users`, `items` and `bias`; for a user without a row, by the bias alone."""
    return _scorer(tables.factors(state))


def _scorer(params: Params) -> ScoreCatalogue:
    return lambda queries: np.asarray(_scores(params, jnp.asarray(queries.user)))
