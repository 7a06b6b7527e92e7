"""First stages: who picks the candidates, and the scores that the reranker must not trust."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from dnr_jax.retrievers.matrix_factorization import matrix_factorization
from dnr_jax.retrievers.popularity import popularity
from dnr_jax.retrievers.random import random
from dnr_jax.retrievers.retriever import Retriever

RETRIEVERS: dict[str, Callable[..., Retriever]] = {
    "matrix_factorization": matrix_factorization,
    "popularity": popularity,
    "random": random,
}


def build(name: str, **kwargs: Any) -> Retriever:
    """Make the retriever `name` of `RETRIEVERS`; `ValueError` names the known ones."""
    if name not in RETRIEVERS:
        raise ValueError(f"retriever {name!r} is not one of {sorted(RETRIEVERS)}")
    known = set(inspect.signature(RETRIEVERS[name]).parameters)
    if set(kwargs) != known:
        raise ValueError(f"retriever {name!r} takes {sorted(known)}, got {sorted(kwargs)}")
    return RETRIEVERS[name](**kwargs)
