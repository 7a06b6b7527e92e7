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

from dataclasses import dataclass

from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.pointwise import PointwiseScorer
from dnr_jax.nn.trunk import Trunk
from dnr_jax.rerankers.gru4rec import gru4rec
from dnr_jax.rerankers.hetcomp.distillation import School, distilled
from dnr_jax.rerankers.prm import PRMSettings, prm
from dnr_jax.rerankers.sasrec import sasrec
from dnr_jax.settings import knob
from dnr_jax.types import Reranker, Task


@dataclass(frozen=True, kw_only=True)
class HetCompSettings(Trunk):
    """Knobs of HetComp, the shared ones for all of its models alike."""

    snapshots: int = knob(3, "Q, points of the teachers' training that are kept", at_least=1)


def hetcomp(task: Task, settings: HetCompSettings) -> Reranker:
    """Build HetComp (Kang et al. 2023, arXiv 2303.01130): GRU4Rec, SASRec and PRM teach a DNN.

    As a scorer, and under DNR, it is the student `head(MLP(h_i), x_i)` alone.
    """
    teachers = {
        "gru4rec": gru4rec(task, settings),
        "sasrec": sasrec(task, settings),
        "prm": prm(task, PRMSettings.on(settings)),
    }
    student = wrap(PointwiseScorer(task.spec, settings), dropout=settings.dropout)
    return distilled(School(student, teachers, settings.snapshots))
