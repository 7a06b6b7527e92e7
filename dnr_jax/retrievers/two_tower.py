"""Two-tower with features: s(u, i) = f(mean history, user) . g(item) + b_i, by sampled softmax.

After YouTubeDNN (Covington et al., RecSys 2016, doi 10.1145/2959100.2959190): the mean of the
embedded history and the user's features go through a network, whose output is multiplied with
the items' vectors. The item tower sums the embeddings of id and features, which it shares with the
history. The loss is the softmax over the items of the batch with the correction of Yi et al.
(RecSys 2019, doi 10.1145/3298689.3346996, Eq. 3): s - log Q(i), where Q is an item's share of the
training positives, and so its expected share of a batch.

Deviations: the user's id is a feature; events carry their feedback; items have a bias; the epoch is
chosen on validation. The example's age and the paper's other features are not in our data sets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax import ops
from dnr_jax.nn.dropout import Drop, identity, make_dropout
from dnr_jax.nn.layers import MLP
from dnr_jax.nn.tables import RowsOf, distinct
from dnr_jax.retrievers import tables
from dnr_jax.retrievers.descent import TableSettings, check_memory
from dnr_jax.retrievers.epochs import Step, by_parts, fit_batches, product
from dnr_jax.retrievers.retriever import (
    FittedRetriever,
    Queries,
    Retriever,
    ScoreCatalogue,
    State,
    Training,
    named,
    nested,
)
from dnr_jax.retrievers.tables import Features
from dnr_jax.settings import knob
from dnr_jax.types import Array, Params


@dataclass(frozen=True, kw_only=True)
class TwoTowerSettings(TableSettings):
    """Settings of the two-tower model."""

    hidden: int = knob(128, "width of the user tower's hidden layer", at_least=1)
    dropout: float = knob(0.1, "rate of dropout in the user tower", at_least=0, below=1)


class Examples(NamedTuple):
    """The training positives, and the inputs of the towers.

    Attributes:
      request, item: `int32 [P]`.
      log_share: `float32 [V]`, log Q; 0 for an item without a positive.
      queries: the queries of all lists.
      known: the features.
    """

    request: np.ndarray
    item: np.ndarray
    log_share: np.ndarray
    queries: Queries
    known: Features


def two_tower(settings: TwoTowerSettings) -> Retriever:
    """Make the retriever; the parameters of its best epoch on validation are kept."""

    def fit(key: Array, training: Training, *, progress: bool) -> FittedRetriever:
        training.check()
        init_key, fit_key = jax.random.split(key)
        init = partial(_init, init_key, settings, training)
        check_memory("two_tower", settings, jax.eval_shape(init))
        examples = _examples(training)
        start = (init(), examples, len(examples.item))
        scorer = _scorer(settings, examples.known)
        rows = None if settings.tables == "dense" else rows_read
        fitted = fit_batches(
            objective, settings, fit_key, start, training, scorer, progress=progress, rows_read=rows
        )
        return fitted._replace(state={**(fitted.state or {}), **named({"known": examples.known})})

    def restore(state: State) -> ScoreCatalogue:
        kept = nested(state)
        known = Features(**kept.pop("known"))
        for side in ("users", "items"):  # one table per column
            columns = kept["tables"][side]
            kept["tables"][side] = [columns[str(number)] for number in range(len(columns))]
        return _scorer(settings, known)(jax.tree.map(jnp.asarray, kept))

    return Retriever(fit, restore=restore)


def sampled_softmax(logits: Array, log_share: Array, real: Array) -> Array:
    """-log softmax of the diagonal of `logits - log Q`; the classes are the batch's examples.

    An item that occurs several times in the batch counts each time, so the sum estimates that of
    the softmax over the catalogue.

    Args:
      logits: `float32 [B, B]`, each example's query with each example's item.
      log_share: `float32 [B]`, log Q of the items.
      real: `float32 [B]`, 0 for rows, and columns, that do not count.

    Returns:
      `float32 [B]`, 0 where `real` is 0.
    """
    corrected = ops.mask_logits(logits - log_share[None], (real > 0)[None])
    return -jnp.diagonal(jax.nn.log_softmax(corrected, axis=1)) * real


def objective(settings: TwoTowerSettings, params: Params, data: Examples, step: Step) -> Array:
    """Average `sampled_softmax` over a batch."""
    request, item = data.request[step.rows], data.item[step.rows]
    drop = make_dropout(settings.dropout, step.key, jnp.arange(len(item), dtype=jnp.uint32))
    queries = Queries(*(column[request] for column in data.queries))
    users = _users(settings, params, data.known, queries, drop)
    items = tables.read(params["tables"]["items"], data.known.items[item])
    logits = users @ items.T + tables.at(params["tables"]["bias"], item)
    each = sampled_softmax(logits, data.log_share[item], step.real)
    return each.sum() / step.real.sum()


def rows_read(params: Params, data: Examples, step: Step) -> RowsOf:
    """Return the rows that `objective` reads, including those of padding examples."""
    request, item = data.request[step.rows], data.item[step.rows]
    own = params["tables"]
    users = data.known.users[data.queries.user[request]]
    items = jnp.append(data.queries.history[request].reshape(-1), item)
    return {
        **tables.distinct(own["users"], users, ("tables", "users")),
        **tables.distinct(own["items"], data.known.items[items], ("tables", "items")),
        ("tables", "bias"): distinct(item, rows=len(own["bias"])),
    }


def _examples(training: Training) -> Examples:
    train = training.train
    positive = train.label > 0.5
    count = np.bincount(train.item[positive], minlength=training.counts["item_count"])
    log_share = np.log(np.maximum(count, 1) / count.sum()) * (count > 0)
    known = tables.features(training.catalogue)
    columns = (train.request[positive], train.item[positive], log_share.astype(np.float32))
    return Examples(*columns, training.queries, known)


def _init(key: Array, settings: TwoTowerSettings, training: Training) -> Params:
    table_key, tower_key = jax.random.split(key)
    example = jnp.zeros((1, 2 * settings.width))
    bias = {"bias": jnp.zeros(training.counts["item_count"])}
    return {
        "tables": tables.init(table_key, training.catalogue, settings.width) | bias,
        "tower": _tower(settings).init(tower_key, example, drop=identity)["params"],
    }


def _tower(settings: TwoTowerSettings) -> MLP:
    return MLP((settings.hidden,), settings.width)


def _users(
    settings: TwoTowerSettings, params: Params, known: Features, queries: Queries, drop: Drop
) -> Array:
    """Return the user tower's vectors `float32 [n, D]`."""
    mean = tables.history_mean(params["tables"], known, queries)
    user = tables.read(params["tables"]["users"], known.users[queries.user])
    inputs = jnp.concatenate([mean, user], axis=1)
    vectors: Any = _tower(settings).apply({"params": params["tower"]}, inputs, drop=drop)
    return vectors


def _scorer(settings: TwoTowerSettings, known: Features) -> Callable[[Params], ScoreCatalogue]:
    @jax.jit
    def scores(params: Params, known: Features, queries: Queries) -> Array:
        users = _users(settings, params, known, queries, identity)
        items = tables.read(params["tables"]["items"], known.items)
        return product(users, items) + params["tables"]["bias"]

    held = jax.tree.map(jnp.asarray, known)
    return lambda params: by_parts(lambda queries: scores(params, held, queries))
