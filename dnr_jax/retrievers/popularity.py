"""Popularity: every user gets the items that most users liked."""

from __future__ import annotations

import numpy as np

from dnr_jax.retrievers.retriever import (
    FittedRetriever,
    Retriever,
    RetrieverSettings,
    Training,
)
from dnr_jax.types import Array


def popularity(settings: RetrieverSettings) -> Retriever:
    """Score an item by log(1 + its training positives)."""
    del settings
    return Retriever(_fit)


def _fit(key: Array, training: Training, *, progress: bool) -> FittedRetriever:
    del key, progress
    positives = training.train.item[training.train.label > 0.5]
    count = np.bincount(positives, minlength=training.counts["item_count"])
    row = np.log1p(count).astype(np.float32)
    return FittedRetriever(lambda queries: np.tile(row, (len(queries.user), 1)), {})
