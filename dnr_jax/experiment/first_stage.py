"""Cut interactions into lists, train a retriever on training lists only, build candidate sets."""

from __future__ import annotations

import logging
from typing import Any

import jax

from dnr_jax.data import candidates, lists
from dnr_jax.data.candidates import CandidateRule, Truth
from dnr_jax.data.interactions import Interactions
from dnr_jax.data.store import Writer
from dnr_jax.retrievers import cross_fit
from dnr_jax.retrievers.retriever import Retriever

# Enough signs for inner products of item vectors to stand out from noise.
VECTOR_WIDTH = 64

_LOG = logging.getLogger(__name__)


def build(
    writer: Writer,
    interactions: Interactions,
    retriever: Retriever,
    rule: CandidateRule,
    *,
    slate: int,
    history: int,
    folds: int,
    truth: Truth | None,
) -> None:
    """Write the requests of an interactions data set.

    Args:
      writer: writes to an empty folder.
      interactions: the events to cut into lists.
      retriever: the first stage, not yet trained.
      rule: which items are candidates; its seed is also the retriever's and the item vectors'.
      slate: items per list K.
      history: events kept T.
      folds: number of cross-fitting folds; 0 = off.
      truth: true relevance, where known.

    Raises:
      ValueError: too little data for the lists, the retriever or a split; see there.
    """
    requests = lists.build(interactions, slate=slate, history=history)
    key = jax.random.key(rule.seed)
    first_stage = cross_fit.fit(retriever, key, requests, folds=folds, progress=True)
    first, *parts = first_stage.seconds
    _LOG.info("retriever trained in %.1f s, and in %.1f s for %d folds", first, sum(parts), folds)
    writer.write_retriever(first_stage.state or {})
    writer.write_timings(retriever_seconds=first, folds_seconds=sum(parts))
    report = {
        "ratings": interactions.report,
        "retriever": first_stage.report,
        "findings": [_quality(first_stage.report["test"])],
        "warnings": interactions.report.get("warnings", []),
    }
    candidates.build(
        writer,
        requests,
        first_stage.score,
        rule,
        item_vectors=lists.item_vectors(requests, width=VECTOR_WIDTH, seed=rule.seed),
        truth=truth,
        report=report,
        progress=True,
        random=interactions.random,
    )


def _quality(test: dict[str, Any]) -> str:
    numbers = ", ".join(f"{n} {v:.3f}" for n, v in test.items() if isinstance(v, float))
    return f"retriever on test: {numbers}"
