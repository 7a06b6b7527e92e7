"""HetComp-style: a light student learns the consensus of different teachers, from easy to hard.

Kang et al. 2023, arXiv 2303.01130. Snapshots of teachers of different kinds are kept at Q points of
their training. For every request and teacher a pointer v, which only rises, selects the snapshot:

- The consensus ranks by `sum over teachers of w_i`, with `w_i = 1 / log2(1 + rank_i)` in the
  ranking of the snapshot at v.
- v moves by one if the student is close to the next snapshot, `d(Q) / d(v + 1) > ratio`, or closer
  to the last one, `< 1`; d is one minus the NDCG between its ranking and a snapshot's.
- Coarse, while pointers move: `log(1 + S_else / e^s)` of the positives and the better half of the
  consensus, with S_else the sum of e^s outside them. Their order does not matter.
- Fine, with all pointers at Q: list-wise likelihood of the positives, plus half of that of the best
  half and of the best tenth.

So a student learns from labels only through the positives in its target. The equations are in
`consensus`.

Pointers move between stages, by the student at the end of the stage before. They are recomputed
from those students in each batch (`distillation`), so they rise by construction and nothing has to
be stored per request.

The paper's text was not available, so these are ours too: three teachers, trained by binary
cross-entropy (the authors have six); w as importance; a ratio that falls in one move as far as in
ten of the authors' code, from 1.05 to below 1, so every pointer moves from the second move on; no
weights on the losses. Only the student is deployed. Training holds 3 Q teachers and Q + 1 students.
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
    """Knobs of HetComp; the shared ones apply to all of its models."""

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
