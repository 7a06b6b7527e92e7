"""Random: the floor that every retriever must beat."""

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
    Training,
)
from dnr_jax.types import Array


def random(settings: RetrieverSettings) -> Retriever:
    """Score by uniform numbers that depend on (key, user, item) only."""
    del settings
    return Retriever(_fit)


def _fit(key: Array, training: Training, *, progress: bool) -> FittedRetriever:
    del progress
    item_count = training.counts["item_count"]

    @jax.jit
    def draw(users: Array) -> Array:
        return ops.per_request(lambda k: jax.random.uniform(k, (item_count,)), key, users)

    def score(queries: Queries) -> np.ndarray:
        return np.asarray(draw(jnp.asarray(queries.user, jnp.uint32)))

    return FittedRetriever(score, {})
