"""Results of a trained model on a split: scoring, summaries, and the audit of candidates."""

from __future__ import annotations

from dnr_jax.evaluation.audit import audit, refuse_unmeasurable, render
from dnr_jax.evaluation.scoring import compile_split, score_split, score_stream
from dnr_jax.evaluation.summary import Evaluation, evaluate, mean_ndcg, ndcg_sums

__all__ = [
    "Evaluation",
    "audit",
    "compile_split",
    "evaluate",
    "mean_ndcg",
    "ndcg_sums",
    "refuse_unmeasurable",
    "render",
    "score_split",
    "score_stream",
]
