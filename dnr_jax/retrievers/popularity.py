"""Popularity: every user gets the items that most users liked."""

from __future__ import annotations

import numpy as np

from dnr_jax.data.lists import Events
from dnr_jax.retrievers.retriever import FittedRetriever, Retriever, RetrieverSettings
from dnr_jax.types import Array


def popularity(settings: RetrieverSettings) -> Retriever:
    """Score an item by log(1 + its training positives)."""
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
    del key, valid, user_count, progress
    count = np.bincount(train.item[train.label > 0.5], minlength=item_count)
    row = np.log1p(count).astype(np.float32)
    return FittedRetriever(lambda users: np.tile(row, (len(users), 1)), {})
