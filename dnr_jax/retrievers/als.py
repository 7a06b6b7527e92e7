"""ALS: matrix factorisation of implicit feedback by alternating least squares, with `implicit`.

Hu, Koren and Volinsky, ICDM 2008, doi 10.1109/ICDM.2008.22: minimise over p and q

  sum over all u, i of c_ui (r_ui - p_u . q_i)^2 + lambda (sum |p_u|^2 + sum |q_i|^2),

r_ui = 1 for a positive in training, else 0, and c_ui = alpha for a positive, else 1 (`implicit`'s
weights; the paper has 1 + alpha r). Each half of a sweep is solved exactly, by Cholesky.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

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
from dnr_jax.settings import MOST_INT, knob
from dnr_jax.types import Array


@dataclass(frozen=True, kw_only=True)
class ALSSettings(RetrieverSettings):
    """Settings of ALS."""

    width: int = knob(64, "latent factors", at_least=1)
    iterations: int = knob(15, "sweeps over users and items", at_least=1, at_most=10_000)
    regularization: float = knob(1.0, "lambda", at_least=0, at_most=1e6)
    alpha: float = knob(
        10.0, "weight of a positive; all other entries have weight 1", above=1, at_most=1e6
    )


def als(settings: ALSSettings) -> Retriever:
    """Make the retriever; it runs all iterations and does not use validation."""
    liked.require("als")

    def fit(key: Array, training: Training, *, progress: bool) -> FittedRetriever:
        training.check()
        users, items = factors(settings, key, training, progress=progress)
        state = {"users": users, "items": items}
        return FittedRetriever(restore(state), {}, state)

    return Retriever(fit, restore=restore)


def restore(state: State) -> ScoreCatalogue:
    """Score by the factors `users` and `items`; those of a user without positives are 0."""

    def score(queries: Queries) -> np.ndarray:
        return np.asarray(state["users"][queries.user] @ state["items"].T)

    return score


def factors(
    settings: ALSSettings, key: Array, training: Training, *, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return p `float32 [U, D]` and q `float32 [V, D]`."""
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):  # `implicit` has its own threads
        model = AlternatingLeastSquares(
            factors=settings.width,
            regularization=settings.regularization,
            alpha=settings.alpha,
            iterations=settings.iterations,
            use_cg=False,
            random_state=int(jax.random.randint(key, (), 0, MOST_INT)),
        )
        model.fit(liked.matrix(training), show_progress=progress)
    return np.asarray(model.user_factors), np.asarray(model.item_factors)
