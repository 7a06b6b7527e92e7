"""Random: the floor that every retriever must beat."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax import ops
from dnr_jax.data.lists import Events
from dnr_jax.retrievers.retriever import FittedRetriever, Retriever, RetrieverSettings
from dnr_jax.types import Array


def random(settings: RetrieverSettings) -> Retriever:
    """Score by uniform numbers that depend on (key, user, item) only."""
    del settings
    return Retriever(_fit)


def _fit(
    key: Array,
    train: Events,
    valid: Events,
    *,
    user_count: int,
    item_count: int,
    progress: bool,
) -> FittedRetriever:
    del train, valid, user_count, progress

    @jax.jit
    def draw(users: Array) -> Array:
        return ops.per_request(lambda k: jax.random.uniform(k, (item_count,)), key, users)

    return FittedRetriever(lambda users: np.asarray(draw(jnp.asarray(users, jnp.uint32))), {})
