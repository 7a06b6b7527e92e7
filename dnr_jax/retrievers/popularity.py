"""Popularity: every user gets the items that the most users liked."""

from __future__ import annotations

import numpy as np

from dnr_jax.retrievers.retriever import (
    FittedRetriever,
    Retriever,
    RetrieverSettings,
    ScoreCatalogue,
    State,
    Training,
)
from dnr_jax.types import Array


def popularity(settings: RetrieverSettings) -> Retriever:
    """Score an item by log(1 + its training positives)."""
    del settings
    return Retriever(_fit, restore=restore)


def _fit(key: Array, training: Training, *, progress: bool) -> FittedRetriever:
    del key, progress
    positives = training.train.item[training.train.label > 0.5]
    count = np.bincount(positives, minlength=training.counts["item_count"])
    state = {"items": np.log1p(count).astype(np.float32)}
    return FittedRetriever(restore(state), {}, state)


def restore(state: State) -> ScoreCatalogue:
    """Give every user the scores `items`."""
    return lambda queries: np.tile(state["items"], (len(queries.user), 1))
