"""The candidate protocols: which items of the catalogue a request's reranker is given.

The protocol decides what the numbers mean. `exposed_plus_retrieved` gives the answer away (its
negatives are the retriever's top items by construction, so LOW scores mark the exposed items);
`exposed_plus_sampled` is optimistic; `retrieved_pool` is what a second stage really faces. If a
log has items shown uniformly at random, `random_exposure` tests on them (see
`data.random_exposure`) and trains on `retrieved_pool`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax import ops
from dnr_jax.settings import Settings, knob
from dnr_jax.types import Array


class Pick(Protocol):
    """Chooses one request's candidates.

    Arguments: `key`, the request's own; `raw` `float32 [V]`, the retriever's scores; `allowed`
    `bool [V]`, items that may be offered; `shown` `int32 [K]`, the exposed list; `weights`
    `float32 [V]` >= 0, sampling weights of the items; `size` N.

    Returns items `int32 [N]` and where `bool [N]`, the real candidates.
    """

    def __call__(
        self, key: Array, raw: Array, allowed: Array, shown: Array, weights: Array, *, size: int
    ) -> tuple[Array, Array]: ...


def exposed_plus_retrieved(
    key: Array, raw: Array, allowed: Array, shown: Array, weights: Array, *, size: int
) -> tuple[Array, Array]:
    """Take the exposed items and the retriever's top others; see `Pick`."""
    del key, weights
    return _with_exposed(raw, allowed, shown, size)


def exposed_plus_sampled(
    key: Array, raw: Array, allowed: Array, shown: Array, weights: Array, *, size: int
) -> tuple[Array, Array]:
    """Take the exposed items and others drawn by `weights` without replacement; see `Pick`.

    By the Gumbel top-k trick (Kool et al. 2019, arXiv 1903.06059).
    """
    urge = jax.random.gumbel(key, raw.shape) + jnp.log(jnp.where(weights > 0, weights, 1.0))
    return _with_exposed(urge, allowed & (weights > 0), shown, size)


def retrieved_pool(
    key: Array, raw: Array, allowed: Array, shown: Array, weights: Array, *, size: int
) -> tuple[Array, Array]:
    """Take the retriever's top items, whether or not they were exposed; see `Pick`."""
    del key, shown, weights
    return _top(raw, allowed, size)


def _with_exposed(value: Array, allowed: Array, shown: Array, size: int) -> tuple[Array, Array]:
    others, where = _top(value, allowed.at[shown].set(False), size - shown.size)
    real = jnp.ones(shown.shape, bool)
    return jnp.concatenate([shown, others]), jnp.concatenate([real, where])


def _top(value: Array, allowed: Array, count: int) -> tuple[Array, Array]:
    some = min(count, value.size)
    best, items = jax.lax.top_k(jnp.where(allowed, value, -jnp.inf), some)
    padding = (0, count - some)
    return jnp.pad(items, padding), jnp.pad(best > -jnp.inf, padding)


CANDIDATES: dict[str, Pick] = {
    "exposed_plus_retrieved": exposed_plus_retrieved,
    "exposed_plus_sampled": exposed_plus_sampled,
    "retrieved_pool": retrieved_pool,
}

RANDOM_EXPOSURE = "random_exposure"

# Training interactions of each item -> its weight in sampling.
SAMPLING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "uniform": np.ones_like,
    "popularity": np.asarray,
}


def _sigmoid(raw: Array, where: Array) -> Array:
    return jnp.where(where, jax.nn.sigmoid(raw), 0.0)


def _rank(raw: Array, where: Array) -> Array:
    """1 for the best candidate, 0 for the worst, evenly spaced; ties by position."""
    last = jnp.maximum(where.sum(-1, keepdims=True) - 1, 1)
    return jnp.where(where, 1.0 - (ops.ranks(raw, where) - 1) / last, 0.0)


SCORES: dict[str, Callable[[Array, Array], Array]] = {
    "minmax": ops.min_max,
    "sigmoid": _sigmoid,
    "rank": _rank,
}


def scale(raw: np.ndarray, where: np.ndarray, name: str) -> np.ndarray:
    """Bring raw scores to x in [0, 1] by a transform of `SCORES`: `float32 [B, N]`.

    Args:
      raw: `float [B, N]`, finite where `where` is True.
      where: `bool [B, N]`, real candidates.
      name: the transform; "" or "as_is" = the scores already lie in [0, 1].
    """
    raw = np.where(where, raw, 0).astype(np.float64)
    if name in ("", "as_is"):
        return raw.astype(np.float32)
    if name != "sigmoid":  # unaffected by a shift; it keeps large scores distinct in float32
        raw = np.where(where, raw - np.min(raw, 1, initial=np.inf, where=where, keepdims=True), 0)
    return np.asarray(SCORES[name](jnp.asarray(raw, jnp.float32), jnp.asarray(where)), np.float32)


@dataclass(frozen=True, kw_only=True)
class CandidateSettings(Settings):
    """Which candidates a request has."""

    name: str = knob("", "the protocol: logged, or a name of `CANDIDATES`")
    size: int = knob(50, "N, candidates a request", at_least=2, at_most=100_000)
    sampling: str = knob(
        "uniform", "exposed_plus_sampled only: uniform | popularity", one_of=SAMPLING
    )
    train_share: float = knob(
        1.0, "of the training lists, the latest; the retriever learns from all", above=0, at_most=1
    )


def excludes_seen(name: str) -> bool:
    """Tell whether protocol `name` excludes items from the user's earlier lists.

    In training, items of the user's other training lists are excluded as well. Only the published
    `exposed_plus_retrieved` keeps them among its negatives. Their scores are high because the
    retriever was trained on these pairs, so the leak is at its worst.
    """
    return name != "exposed_plus_retrieved"
