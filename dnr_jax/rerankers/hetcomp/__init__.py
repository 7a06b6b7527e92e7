"""HetComp-style: a light student learns the consensus of unlike teachers, from easy to hard.

Kang et al. 2023, arXiv 2303.01130. Teachers of different kinds are kept at Q points of their own
training. For every request and teacher a pointer v says which snapshot teaches, and only rises:

- The consensus ranks by `sum over teachers of w_i`, `w_i = 1 / log2(1 + rank_i)` in the ranking of
  the snapshot at v.
- v moves by one where the student is near what comes next, `d(Q) / d(v + 1) > ratio`, or nearer
  the end, `< 1`; d is one minus the NDCG between its ranking and a snapshot's.
- Coarse, while pointers move: `log(1 + S_else / e^s)` of the positives and the better half of the
  consensus, with S_else the sum of e^s outside them. Their order is free.
- Fine, all at Q: list-wise likelihood of positives, and halved of best half and best tenth.

A student thus learns from labels by the positives in its target alone. The equations stand in
`consensus`.

Pointers move between stages, on the student as the stage before left it, and are computed anew
from those students in each batch (`distillation`): they rise by construction, and no request
needs a memory.

Ours besides, as the text was not at hand: three teachers, trained by binary cross-entropy (the
authors have six); w as importance; a ratio that falls in one move as far as in ten of the authors'
code, from 1.05 to below 1, so that from the second move on every pointer moves; no weights on the
losses. Deployed is the student alone. Training holds 3 Q teachers and Q + 1 students.
"""

from __future__ import annotations

from typing import Any

from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.pointwise import PointwiseScorer
from dnr_jax.nn.score_entry import ScoreUse
from dnr_jax.nn.sizes import check_heads, check_positive
from dnr_jax.rerankers.gru4rec import gru4rec
from dnr_jax.rerankers.hetcomp.distillation import School, distilled
from dnr_jax.rerankers.prm import prm
from dnr_jax.rerankers.sasrec import sasrec
from dnr_jax.types import FeatureSpec, Reranker


def hetcomp(
    spec: FeatureSpec,
    *,
    width: int,
    layers: int,
    heads: int,
    feed_forward: int,
    dropout: float,
    history_layers: int,
    snapshots: int,
    score_entry: str,
    score_place: str,
) -> Reranker:
    """Build HetComp (Kang et al. 2023, arXiv 2303.01130): GRU4Rec, SASRec and PRM teach a DNN.

    As a scorer, and under DNR, it is the student `head(MLP(h_i), x_i)` alone.

    Args:
      spec: column names and vocabulary sizes.
      width: D, a multiple of `heads`, of all models.
      layers: transformer blocks over the candidates, in PRM, >= 1.
      heads: attention heads, everywhere.
      feed_forward: hidden width of each block's FFN.
      dropout: rate in [0, 1), of all models.
      history_layers: transformer blocks over the history, >= 1.
      snapshots: Q, points of the teachers' training that are kept, >= 1.
      score_entry: "none", "concatenate", "add" or "weight", of all models; see `nn.score_entry`.
      score_place: "late" (non-linear head), "late_linear" or "early".

    Raises:
      ValueError: a size, rate or name is outside its range.
    """
    check_heads(width, heads)
    check_positive(
        layers=layers,
        history_layers=history_layers,
        feed_forward=feed_forward,
        snapshots=snapshots,
    )
    entry: dict[str, Any] = {
        "dropout": dropout,
        "score_entry": score_entry,
        "score_place": score_place,
    }
    sizes = {"width": width, "heads": heads, "feed_forward": feed_forward}
    shared: dict[str, Any] = {**entry, **sizes, "history_layers": history_layers}
    teachers = {
        "gru4rec": gru4rec(spec, width=width, **entry),
        "sasrec": sasrec(spec, **shared),
        "prm": prm(spec, layers=layers, positions="none", causal=False, **shared),
    }
    use = ScoreUse(score_entry, score_place)
    student = PointwiseScorer(spec, width, heads, feed_forward, history_layers, use)
    return distilled(School(wrap(student, dropout=dropout), teachers, snapshots))
