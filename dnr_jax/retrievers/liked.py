"""The matrix of users and the items they liked, as input of the library `implicit`."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from dnr_jax.retrievers.retriever import Training


def require(name: str) -> None:
    """Raise `ValueError` if the library that the retriever `name` needs is not installed."""
    if importlib.util.find_spec("implicit") is None:
        raise ValueError(
            f"the retriever {name!r} needs the library implicit: pip install 'dnr_jax[retrievers]'"
        )


def matrix(training: Training) -> Any:
    """Return the training positives as a SciPy CSR matrix of ones, `float32 [U, V]`."""
    from scipy.sparse import csr_matrix

    train, shape = training.train, tuple(training.counts.values())
    positive = train.label > 0.5
    users, items = train.user[positive], train.item[positive]
    made = csr_matrix((np.ones(len(users), np.float32), (users, items)), shape)
    made.data[:] = 1.0  # a repeated pair counts once
    return made
