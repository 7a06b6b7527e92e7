"""First stages: who picks the candidates, and the scores that the reranker must not trust."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dnr_jax.retrievers.matrix_factorization import (
    MatrixFactorizationSettings,
    matrix_factorization,
)
from dnr_jax.retrievers.popularity import popularity
from dnr_jax.retrievers.random import random
from dnr_jax.retrievers.retriever import Retriever, RetrieverSettings
from dnr_jax.settings import find, read

__all__ = ["RETRIEVERS", "Entry", "Retriever", "RetrieverSettings", "build"]


class Entry(NamedTuple):
    """A retriever: its knobs, and what makes it of them."""

    settings: type[Any]
    build: Callable[[Any], Retriever]


RETRIEVERS: dict[str, Entry] = {
    "matrix_factorization": Entry(MatrixFactorizationSettings, matrix_factorization),
    "popularity": Entry(RetrieverSettings, popularity),
    "random": Entry(RetrieverSettings, random),
}


def build(name: str, **knobs: Any) -> Retriever:
    """Make the retriever `name` of `RETRIEVERS`; a knob that is left out has its default.

    Raises:
      ValueError: `name` or a knob is unknown, or a value is out of range.
    """
    entry = find("retriever", name, RETRIEVERS)
    return entry.build(read(entry.settings, knobs, name))
