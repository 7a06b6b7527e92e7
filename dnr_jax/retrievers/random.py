"""Random: the baseline that every retriever must beat."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax import ops
from dnr_jax.retrievers.retriever import (
    FittedRetriever,
    Queries,
    Retriever,
    RetrieverSettings,
    ScoreCatalogue,
    State,
    Training,
)
from dnr_jax.types import Array


def random(settings: RetrieverSettings) -> Retriever:
    """Score by uniform numbers that depend on (key, user, item) only."""
    del settings
    return Retriever(_fit, restore=restore)


def _fit(key: Array, training: Training, *, progress: bool) -> FittedRetriever:
    del progress
    count = np.array([training.counts["item_count"]])
    state = {"key": np.asarray(jax.random.key_data(key)), "item_count": count}
    return FittedRetriever(restore(state), {}, state)


def restore(state: State) -> ScoreCatalogue:
    """Draw with the kept key."""
    key = jax.random.wrap_key_data(jnp.asarray(state["key"]))
    item_count = int(state["item_count"][0])

    @jax.jit
    def draw(users: Array) -> Array:
        return ops.per_request(lambda k: jax.random.uniform(k, (item_count,)), key, users)

    def score(queries: Queries) -> np.ndarray:
        return np.asarray(draw(jnp.asarray(queries.user, jnp.uint32)))

    return score
