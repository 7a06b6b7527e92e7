"""Item-KNN: an item is scored by its cosines with items that the user liked, with `implicit`.

Sarwar et al., WWW 2001, doi 10.1145/371920.372071. cos(i, j) is the cosine of columns of the matrix
of users and their training positives, and each item keeps its nearest neighbours. s(u, i) is the
sum of cos(j, i) over the items j that u liked and among whose neighbours i is. Ours: an item is not
its own neighbour, and the sum is not divided by that of the cosines; the paper takes a weighted
mean over the neighbours of i.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from dnr_jax.retrievers import liked
from dnr_jax.retrievers.retriever import (
    FittedRetriever,
    Queries,
    Retriever,
    RetrieverSettings,
    ScoreCatalogue,
    State,
    Training,
)
from dnr_jax.settings import knob
from dnr_jax.types import Array


@dataclass(frozen=True, kw_only=True)
class ItemKNNSettings(RetrieverSettings):
    """Settings of the item neighbours."""

    neighbours: int = knob(100, "of an item that are kept", at_least=1)


def item_knn(settings: ItemKNNSettings) -> Retriever:
    """Make the retriever; it does not use validation."""
    liked.require("item_knn")

    def fit(key: Array, training: Training, *, progress: bool) -> FittedRetriever:
        del key
        training.check()
        from implicit.nearest_neighbours import CosineRecommender
        from implicit.utils import ParameterWarning

        matrix = liked.matrix(training)
        # One more than requested: each item is its own nearest neighbour.
        model = CosineRecommender(K=settings.neighbours + 1)
        with warnings.catch_warnings():
            # The library warns about a conversion that it makes itself.
            warnings.simplefilter("ignore", ParameterWarning)
            model.fit(matrix, show_progress=progress)
        cosines = model.similarity.tocsr()
        cosines.setdiag(0)
        state = {**_parts("liked", matrix), **_parts("cosines", cosines)}
        return FittedRetriever(restore(state), {}, state)

    return Retriever(fit, restore=restore)


def restore(state: State) -> ScoreCatalogue:
    """Score by the items each user liked and their cosines, kept as sparse matrices."""
    matrix, cosines = _whole("liked", state), _whole("cosines", state)

    def score(queries: Queries) -> np.ndarray:
        return np.asarray((matrix[queries.user] @ cosines).todense(), np.float32)

    return score


def _parts(name: str, matrix: csr_matrix) -> dict[str, np.ndarray]:
    parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
    return {f"{name}.{part}": array for part, array in parts.items()} | {
        f"{name}.shape": np.array(matrix.shape)
    }


def _whole(name: str, state: State) -> csr_matrix:
    parts = [np.array(state[f"{name}.{part}"]) for part in ("data", "indices", "indptr")]
    return csr_matrix(tuple(parts), shape=tuple(state[f"{name}.shape"]))
