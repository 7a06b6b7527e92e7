"""Two small stages trained together; the first is then the retriever.

The first stage knows only ids: s1(u, i) = p_u . q_i + b_i. The second, s2, has its own tables and
also reads the history and the features of user and item. Both are trained on pools: the items of a
training list and others drawn from the catalogue, which replace the candidates that a log of all
stages would contain. The methods differ in the loss, a function of s1, s2 and the pool's outcome.
Only the first stage's scores are used; the second stage is discarded.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax import ops
from dnr_jax.data.encoders import KNOWN
from dnr_jax.nn.dropout import identity
from dnr_jax.nn.layers import MLP
from dnr_jax.retrievers import tables
from dnr_jax.retrievers.descent import LearnerSettings
from dnr_jax.retrievers.epochs import (
    Objective,
    Step,
    by_parts,
    fit_batches,
    product,
)
from dnr_jax.retrievers.retriever import (
    FittedRetriever,
    Queries,
    Retriever,
    ScoreCatalogue,
    State,
    Training,
)
from dnr_jax.retrievers.tables import Features
from dnr_jax.settings import knob
from dnr_jax.types import Array, Params


@dataclass(frozen=True, kw_only=True)
class JointSettings(LearnerSettings):
    """Settings of two stages that are trained together."""

    batch_size: int = knob(128, "lists per step", at_least=1)
    sampled: int = knob(50, "items of a pool that are drawn from the catalogue", at_least=1)
    passed: int = knob(16, "items of a pool that a stage hands on", at_least=1)
    warm_up: int = knob(3, "first epochs, in which the stages learn alone", at_least=0)
    decay: float = knob(
        0.01, "L2: decay / 2 * |row|^2 on the first stage's rows of a pool", at_least=0, at_most=1e3
    )


class Outcome(NamedTuple):
    """The outcome of the pools of a batch.

    Attributes:
      label: `float32 [B, M]` in {0, 1}; 0 for items that were drawn.
      exposed: `bool [B, M]`, the items of the list.
      where: `bool [B, M]`, False for a drawn item that is also in the list.
      warm: bool scalar, True after the warm-up.
    """

    label: Array
    exposed: Array
    where: Array
    warm: Array


class JointLoss(Protocol):
    """Loss of each pool, `float32 [B]`, as a function of both stages' scores `[B, M]`."""

    def __call__(self, settings: Any, s1: Array, s2: Array, outcome: Outcome, /) -> Array: ...

    def __hash__(self) -> int: ...


class Lists(NamedTuple):
    """The training lists, and the inputs of the stages.

    Attributes:
      request: `int32 [L]`.
      items: `int32 [L, K]`.
      labels: `float32 [L, K]`.
      queries: the queries of all lists.
      known: the features.
    """

    request: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    queries: Queries
    known: Features


def joint(settings: JointSettings, loss: JointLoss) -> Retriever:
    """Make a retriever from two stages; the epoch is chosen by the first one's validation AUC."""

    def fit(key: Array, training: Training, *, progress: bool) -> FittedRetriever:
        training.check()
        init_key, fit_key = jax.random.split(key)
        lists = _lists(training)
        start = (_init(init_key, settings, training), lists, len(lists.request))
        own = objective(loss)
        fitted = fit_batches(own, settings, fit_key, start, training, _scorer, progress=progress)
        return fitted._replace(state=_of_the_first(fitted.state or {}))

    return Retriever(fit, restore=restore)


def _of_the_first(state: State) -> State:
    stage = "first."
    return {n.removeprefix(stage): array for n, array in state.items() if n.startswith(stage)}


def restore(state: State) -> ScoreCatalogue:
    """Score by kept `users`, `items` and `bias`; for a user without a row, by the bias alone."""
    return _scorer({"first": tables.factors(state)})


@functools.cache  # one function per loss, so that it is compiled once
def objective(loss: JointLoss) -> Objective:
    """Average a loss over the pools of a batch, and add the decay."""

    def average(settings: JointSettings, params: Params, data: Lists, step: Step) -> Array:
        queries = Queries(*(c[data.request[step.rows]] for c in data.queries))
        own, labels = data.items[step.rows], data.labels[step.rows]
        shape = (len(own), settings.sampled)
        drawn = jax.random.randint(step.key, shape, KNOWN, len(data.known.items))
        items = jnp.concatenate([own, drawn], axis=1)
        outcome = Outcome(
            label=jnp.pad(labels, ((0, 0), (0, settings.sampled))),
            exposed=jnp.broadcast_to(jnp.arange(items.shape[1]) < own.shape[1], items.shape),
            where=_once(own, drawn),
            warm=step.epoch >= settings.warm_up,
        )
        s1 = first(params["first"], queries.user, items)
        s2 = _second(settings, params["second"], data.known, queries, items)
        each = loss(settings, s1, s2, outcome)
        each = each + 0.5 * settings.decay * _squares(params["first"], queries.user, items)
        return ops.weighted_mean(each, step.real)

    return average


def mean(values: Array, where: Array) -> Array:
    """Average the real entries of each pool: `[B, M]` -> `[B]`; 0 without any."""
    return jnp.sum(values * where, axis=1) / jnp.maximum(where.sum(axis=1), 1)


def cross_entropy(logits: Array, label: Array, where: Array) -> Array:
    """Average the binary cross-entropy of each pool: `[B]`."""
    return mean(jax.nn.softplus(logits) - label * logits, where)


def first(params: Params, user: Any, items: Array) -> Array:
    """Score items `int32 [B, M]` for users `int32 [B]` by the first stage: `float32 [B, M]`."""
    vectors = params["items"][items]
    return jnp.einsum("bd,bmd->bm", params["users"][user], vectors) + params["bias"][items]


def _second(
    settings: JointSettings, params: Params, known: Features, queries: Queries, items: Array
) -> Array:
    history = tables.history_mean(params["tables"], known, queries)
    user = tables.read(params["tables"]["users"], known.users[queries.user])
    item = tables.read(params["tables"]["items"], known.items[items])
    wide = [jnp.broadcast_to(part[:, None], item.shape) for part in (user, history)]
    inputs = jnp.concatenate([*wide, item, *(part * item for part in wide)], axis=-1)
    logits: Any = _network(settings).apply({"params": params["network"]}, inputs, drop=identity)
    return logits[..., 0]


def _network(settings: JointSettings) -> MLP:
    return MLP((settings.width,), 1)


def _once(own: Array, drawn: Array) -> Array:
    """Mark the items of pools, except drawn ones that are also in the list."""
    fresh = (drawn[:, :, None] != own[:, None]).all(axis=2)
    return jnp.concatenate([jnp.ones(own.shape, bool), fresh], axis=1)


def _squares(params: Params, user: Any, items: Array) -> Array:
    """Sum the squares of the rows of each pool, the items' averaged over the pool: `[B]`."""
    rows = jnp.square(params["items"][items]).sum(axis=-1).mean(axis=1)
    return jnp.square(params["users"][user]).sum(axis=-1) + rows


def _lists(training: Training) -> Lists:
    train = training.train
    request, start = np.unique(train.request, return_index=True)
    shape = (len(request), -1)  # lists are stored one after another and have the same length
    items, labels = train.item.reshape(shape), train.label.reshape(shape)
    known = tables.features(training.catalogue)
    return Lists(train.request[start], items, labels, training.queries, known)


def _init(key: Array, settings: JointSettings, training: Training) -> Params:
    user_key, item_key, table_key, network_key = jax.random.split(key, 4)
    users, items = training.counts.values()
    width, scale = settings.width, tables.INITIAL_SCALE
    example = jnp.zeros((1, 1, 5 * width))
    return {
        "first": {
            "users": scale * jax.random.normal(user_key, (users, width)),
            "items": scale * jax.random.normal(item_key, (items, width)),
            "bias": jnp.zeros(items),
        },
        "second": {
            "tables": tables.init(table_key, training.catalogue, width),
            "network": _network(settings).init(network_key, example, drop=identity)["params"],
        },
    }


@jax.jit
def _scores(params: Params, user: Array) -> Array:
    return product(params["users"][user], params["items"]) + params["bias"]


def _scorer(params: Params) -> ScoreCatalogue:
    return by_parts(lambda queries: _scores(params["first"], queries.user))
