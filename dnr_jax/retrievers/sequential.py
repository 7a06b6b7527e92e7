"""Sequential: SASRec as a retriever, a causal transformer over the items that the user liked.

Kang and McAuley 2018, arXiv 1808.09781: `H = sqrt(D) E[liked] + P`, then causal attention blocks.
The state at a position predicts the next liked item by `h_t . E[i]` with one item table. The loss
is the softmax over the whole catalogue (whose lack explains SASRec's gap to BERT4Rec, according to
Klenitskiy and Vasilev, RecSys 2023, arXiv 2309.07602) or the paper's cross-entropy with one sampled
negative.

A request is scored by the state at its own time, after the positives of its history, which ends
before it. Training sequences are made only from training lists, without those of a hidden fold.

Deviations: H passes a LayerNorm first; the blocks are post-norm; long sequences are cut into
windows, all of which are used in training, whereas the paper keeps the latest; items have a bias,
which alone scores a query without any positive; the epoch is chosen on validation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.data.direct import POSITIVE
from dnr_jax.data.encoders import KNOWN
from dnr_jax.data.lists import Events
from dnr_jax.nn.attention import Transformer
from dnr_jax.nn.dropout import Drop, identity, make_dropout
from dnr_jax.nn.layers import LayerNorm
from dnr_jax.retrievers.descent import LearnerSettings
from dnr_jax.retrievers.epochs import Step, by_parts, fit_batches, product
from dnr_jax.retrievers.retriever import (
    FittedRetriever,
    Queries,
    Retriever,
    ScoreCatalogue,
    State,
    Training,
    nested,
)
from dnr_jax.settings import knob
from dnr_jax.types import Array, Params


def softmax(logits: Array, target: Array, key: Array) -> Array:
    """-log softmax of the target over the catalogue: `[n, V]`, `[n]` -> `[n]`."""
    del key
    known = jnp.arange(logits.shape[1]) >= KNOWN
    log_probabilities = jax.nn.log_softmax(ops.mask_logits(logits, known), axis=1)
    return -jnp.take_along_axis(log_probabilities, target[:, None], axis=1)[:, 0]


def bce(logits: Array, target: Array, key: Array) -> Array:
    """-log sigma(s_target) - log(1 - sigma(s_j)), with j drawn uniformly from the other items."""
    others = logits.shape[1] - KNOWN
    shift = jax.random.randint(key, target.shape, 1, jnp.maximum(others, 2))
    negative = KNOWN + (target - KNOWN + shift) % others
    picked = (jnp.take_along_axis(logits, i[:, None], axis=1)[:, 0] for i in (target, negative))
    up, down = picked
    return jax.nn.softplus(-up) + jax.nn.softplus(down)


LOSSES: dict[str, Callable[[Array, Array, Array], Array]] = {"softmax": softmax, "bce": bce}


@dataclass(frozen=True, kw_only=True)
class SequentialSettings(LearnerSettings):
    """Settings of the sequential retriever."""

    loss: str = knob("softmax", "softmax (all items) | bce (one sampled)", one_of=LOSSES)
    batch_size: int = knob(128, "sequences per step", at_least=1)
    layers: int = knob(2, "transformer blocks", at_least=1, at_most=1000)
    heads: int = knob(2, "attention heads; they divide the width", at_least=1)
    dropout: float = knob(0.2, "rate of dropout", at_least=0, below=1)

    def check(self) -> None:
        """Refuse a width that the heads cannot share evenly."""
        super().check()
        if self.width % self.heads:
            raise ValueError(
                f"width is {self.width}, which {self.heads} heads cannot share: choose a multiple"
            )


class States(nn.Module):
    """The state after each item of a sequence.

    Attributes:
      settings: sizes.
    """

    settings: SequentialSettings

    @nn.compact
    def __call__(self, events: Array, where: Array, *, drop: Drop, last_only: bool) -> Array:
        """Map `events` `[n, T, D]`, left-padded, to `[n, T, D]`, or `[n, 1, D]` for the last."""
        sizes = (self.settings.layers, self.settings.heads, self.settings.width)
        places = self.param("positions", nn.initializers.normal(0.02), events.shape[1:])
        tokens = LayerNorm()(drop(events + places[None]))
        return Transformer(*sizes, causal=True)(tokens, where, drop=drop, last_only=last_only)


def sequential(settings: SequentialSettings) -> Retriever:
    """Make the retriever; the parameters of its best epoch on validation are kept."""

    def fit(key: Array, training: Training, *, progress: bool) -> FittedRetriever:
        training.check()
        init_key, fit_key = jax.random.split(key)
        length = training.queries.history.shape[1]
        sequences = windows(training.train, length)
        params = _init(init_key, settings, training.counts["item_count"], length)
        start, scorer = (params, sequences, len(sequences)), _scorer(settings)
        return fit_batches(objective, settings, fit_key, start, training, scorer, progress=progress)

    def restore(state: State) -> ScoreCatalogue:
        return _scorer(settings)(jax.tree.map(jnp.asarray, nested(state)))

    return Retriever(fit, restore=restore)


def windows(train: Events, length: int) -> np.ndarray:
    """Cut each user's positives into sequences: `int32 [W, length + 1]`, left-padded.

    A window's last item is the first of the next window, so each item except a user's first is
    predicted once. Users with one positive have no window.
    """
    positive = train.label > 0.5
    users, items = train.user[positive], train.item[positive]
    found = []
    for own in np.split(items, np.flatnonzero(np.diff(users)) + 1):
        for end in range(len(own), 1, -length):
            some = own[max(0, end - length - 1) : end]
            found.append(np.pad(some, (length + 1 - len(some), 0)))
    if not found:
        raise ValueError("no user has two positives in training: lower config.data.positive_rating")
    return np.stack(found).astype(np.int32)


def objective(settings: SequentialSettings, params: Params, data: Array, step: Step) -> Array:
    """Average the loss over the predicted positions of a batch of windows."""
    items = data[step.rows]
    drop_key, draw_key = jax.random.split(step.key)
    drop = make_dropout(settings.dropout, drop_key, jnp.arange(len(items), dtype=jnp.uint32))
    states = _states(settings, params, items[:, :-1], drop=drop, last_only=False)
    logits = states.reshape(-1, settings.width) @ params["items"].T + params["bias"]
    each = LOSSES[settings.loss](logits, items[:, 1:].reshape(-1), draw_key)
    weights = (items[:, :-1] > 0) * step.real[:, None]
    return ops.weighted_mean(each, weights.reshape(-1))


def _init(key: Array, settings: SequentialSettings, item_count: int, length: int) -> Params:
    table_key, state_key = jax.random.split(key)
    events = jnp.zeros((1, length, settings.width))
    options: dict[str, Any] = {"drop": identity, "last_only": False}
    where = jnp.ones((1, length), bool)
    return {
        "items": settings.width**-0.5 * jax.random.normal(table_key, (item_count, settings.width)),
        "states": States(settings).init(state_key, events, where, **options)["params"],
        "bias": jnp.zeros(item_count),
    }


def _states(
    settings: SequentialSettings, params: Params, items: Array, *, drop: Drop, last_only: bool
) -> Array:
    events = settings.width**0.5 * params["items"][items]
    options: dict[str, Any] = {"drop": drop, "last_only": last_only}
    states: Any = States(settings).apply({"params": params["states"]}, events, items > 0, **options)
    return states


def liked(queries: Queries) -> Queries:
    """Keep the positives of each history, moved to its end."""
    kept = queries.feedback == POSITIVE
    order = np.argsort(kept, axis=1, kind="stable")
    history = np.take_along_axis(np.where(kept, queries.history, 0), order, axis=1)
    return queries._replace(history=history)


def _scorer(settings: SequentialSettings) -> Callable[[Params], ScoreCatalogue]:
    @jax.jit
    def scores(params: Params, items: Array) -> Array:
        states = _states(settings, params, items, drop=identity, last_only=True)[:, 0]
        known = (items > 0).any(axis=1, keepdims=True)
        return product(jnp.where(known, states, 0.0), params["items"]) + params["bias"]

    return lambda params: by_parts(lambda queries: scores(params, liked(queries).history))
