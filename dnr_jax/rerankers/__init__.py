"""Second-stage models: one paper a file, all in the signature of `types.Reranker`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from dnr_jax.rerankers.advir import advir
from dnr_jax.rerankers.caser import caser
from dnr_jax.rerankers.dcdr import dcdr
from dnr_jax.rerankers.diffurec import diffurec
from dnr_jax.rerankers.dlcm import dlcm
from dnr_jax.rerankers.egrerank import egrerank
from dnr_jax.rerankers.glorank import glorank
from dnr_jax.rerankers.goalrank import goalrank
from dnr_jax.rerankers.gru4rec import gru4rec
from dnr_jax.rerankers.hetcomp import hetcomp
from dnr_jax.rerankers.irgan import irgan
from dnr_jax.rerankers.mge import mge
from dnr_jax.rerankers.midnn import midnn
from dnr_jax.rerankers.mir import mir
from dnr_jax.rerankers.mmr import mmr
from dnr_jax.rerankers.nar4rec import nar4rec
from dnr_jax.rerankers.pier import pier
from dnr_jax.rerankers.pier_group import pier_group
from dnr_jax.rerankers.prm import prm
from dnr_jax.rerankers.sasrec import sasrec
from dnr_jax.rerankers.setrank import setrank
from dnr_jax.rerankers.trivial import popularity, random, retriever, reversed_retriever
from dnr_jax.types import FeatureSpec, Reranker

RERANKERS: dict[str, Callable[..., Reranker]] = {
    "advir": advir,
    "caser": caser,
    "dcdr": dcdr,
    "diffurec": diffurec,
    "dlcm": dlcm,
    "egrerank": egrerank,
    "glorank": glorank,
    "goalrank": goalrank,
    "gru4rec": gru4rec,
    "hetcomp": hetcomp,
    "irgan": irgan,
    "mge": mge,
    "midnn": midnn,
    "mir": mir,
    "mmr": mmr,
    "nar4rec": nar4rec,
    "pier": pier,
    "pier_group": pier_group,
    "popularity": popularity,
    "prm": prm,
    "random": random,
    "retriever": retriever,
    "reversed": reversed_retriever,
    "sasrec": sasrec,
    "setrank": setrank,
}


def keywords(name: str) -> tuple[str, ...]:
    """Name the keywords, all required, of reranker `name`.

    Raises:
      ValueError: the name is not in `RERANKERS`.
    """
    if name not in RERANKERS:
        raise ValueError(f"reranker {name!r} is unknown: choose one of {sorted(RERANKERS)}")
    return tuple(word for word in inspect.signature(RERANKERS[name]).parameters if word != "spec")


def build(name: str, *, spec: FeatureSpec, **knobs: Any) -> Reranker:
    """Build the reranker `name` for data of `spec`.

    Raises:
      ValueError: the name is not in `RERANKERS`, `knobs` are not exactly the model's keywords, or
        a value is outside its range.
    """
    known = set(keywords(name))
    if known != set(knobs):
        raise ValueError(
            f"reranker {name!r} takes the keywords {sorted(known)}: "
            f"unknown {sorted(set(knobs) - known)}, missing {sorted(known - set(knobs))}"
        )
    return RERANKERS[name](spec, **knobs)
