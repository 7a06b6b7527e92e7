"""First stages: they pick the candidates and give the scores that the reranker must not trust."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dnr_jax.retrievers.als import ALSSettings, als
from dnr_jax.retrievers.cascade import CascadeSettings, cascade
from dnr_jax.retrievers.external import ExternalSettings, external
from dnr_jax.retrievers.fs_ltr import fs_ltr
from dnr_jax.retrievers.item_knn import ItemKNNSettings, item_knn
from dnr_jax.retrievers.joint import JointSettings
from dnr_jax.retrievers.matrix_factorization import (
    MatrixFactorizationSettings,
    matrix_factorization,
)
from dnr_jax.retrievers.popularity import popularity
from dnr_jax.retrievers.random import random
from dnr_jax.retrievers.rankflow import RankFlowSettings, rankflow
from dnr_jax.retrievers.retriever import Retriever, RetrieverSettings
from dnr_jax.retrievers.sequential import SequentialSettings, sequential
from dnr_jax.retrievers.two_tower import TwoTowerSettings, two_tower
from dnr_jax.settings import find, read

__all__ = ["RETRIEVERS", "Entry", "Retriever", "RetrieverSettings", "build"]


class Entry(NamedTuple):
    """A retriever: its knobs, and the function that builds it from them."""

    settings: type[Any]
    build: Callable[[Any], Retriever]


RETRIEVERS: dict[str, Entry] = {
    "als": Entry(ALSSettings, als),
    "cascade": Entry(CascadeSettings, cascade),
    "external": Entry(ExternalSettings, external),
    "fs_ltr": Entry(JointSettings, fs_ltr),
    "item_knn": Entry(ItemKNNSettings, item_knn),
    "matrix_factorization": Entry(MatrixFactorizationSettings, matrix_factorization),
    "popularity": Entry(RetrieverSettings, popularity),
    "random": Entry(RetrieverSettings, random),
    "rankflow": Entry(RankFlowSettings, rankflow),
    "sequential": Entry(SequentialSettings, sequential),
    "two_tower": Entry(TwoTowerSettings, two_tower),
}


def build(name: str, **knobs: Any) -> Retriever:
    """Make the retriever `name` of `RETRIEVERS`; a knob that is left out has its default.

    Raises:
      ValueError: `name` or a knob is unknown, or a value is out of range.
    """
    entry = find("retriever", name, RETRIEVERS)
    return entry.build(read(entry.settings, knobs, name))
