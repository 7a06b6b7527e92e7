"""Second-stage models: one file or folder per paper, all with the signature of `types.Reranker`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dnr_jax.nn.trunk import Trunk
from dnr_jax.rerankers import (
    advir,
    caser,
    dcdr,
    diffurec,
    dlcm,
    egrerank,
    glorank,
    goalrank,
    gru4rec,
    hetcomp,
    irgan,
    matching_transformer,
    mge,
    midnn,
    mir,
    mmr,
    nar4rec,
    pier,
    pier_group,
    prm,
    sasrec,
    setrank,
    trivial,
)
from dnr_jax.settings import Settings, find, read
from dnr_jax.types import Reranker, Task


class Entry(NamedTuple):
    """A model of the table.

    Attributes:
      title: its name in reports.
      settings: the class of its knobs; `Trunk` where it has no others.
      build: `build(task, settings)` makes the model.
      trains: False for scorers that learn nothing.
      needs_slate: its own training reads the displayed order, `Batch.slate`.
    """

    title: str
    settings: type[Any]
    build: Callable[[Task, Any], Reranker]
    trains: bool = True
    needs_slate: bool = False


RERANKERS: dict[str, Entry] = {
    "advir": Entry("AdvIR", advir.AdvIRSettings, advir.advir),
    "caser": Entry("Caser", caser.CaserSettings, caser.caser),
    "dcdr": Entry("DCDR", dcdr.DCDRSettings, dcdr.dcdr, needs_slate=True),
    "diffurec": Entry("DiffuRec", diffurec.DiffuRecSettings, diffurec.diffurec),
    "dlcm": Entry("DLCM", Trunk, dlcm.dlcm),
    "egrerank": Entry("EGRerank", egrerank.EGRerankSettings, egrerank.egrerank, needs_slate=True),
    "glorank": Entry("GloRank", glorank.GloRankSettings, glorank.glorank, needs_slate=True),
    "goalrank": Entry("GoalRank", goalrank.GoalRankSettings, goalrank.goalrank, needs_slate=True),
    "gru4rec": Entry("GRU4Rec", Trunk, gru4rec.gru4rec),
    "hetcomp": Entry("HetComp", hetcomp.HetCompSettings, hetcomp.hetcomp),
    "irgan": Entry("IRGAN", irgan.IRGANSettings, irgan.irgan),
    "matching_transformer": Entry(
        "Matching transformer", Trunk, matching_transformer.matching_transformer
    ),
    "mge": Entry("MG-E", mge.MGESettings, mge.mge, needs_slate=True),
    "midnn": Entry("MiDNN", Trunk, midnn.midnn),
    "mir": Entry("MIR", mir.MIRSettings, mir.mir),
    "mmr": Entry("MMR", mmr.MMRSettings, mmr.mmr, trains=False),
    "nar4rec": Entry("NAR4Rec", nar4rec.NAR4RecSettings, nar4rec.nar4rec, needs_slate=True),
    "pier": Entry("PIER", Trunk, pier.pier, needs_slate=True),
    "pier_group": Entry("PIER (group's variant)", prm.PRMSettings, pier_group.pier_group),
    "popularity": Entry("popularity", Settings, trivial.popularity, trains=False),
    "prm": Entry("PRM", prm.PRMSettings, prm.prm),
    "random": Entry("random", Settings, trivial.random, trains=False),
    "retriever": Entry("retriever order", Settings, trivial.retriever, trains=False),
    "reversed": Entry("reversed order", Settings, trivial.reversed_retriever, trains=False),
    "sasrec": Entry("SASRec", Trunk, sasrec.sasrec),
    "setrank": Entry("SetRank", setrank.SetRankSettings, setrank.setrank),
}


def build(name: str, task: Task, **knobs: Any) -> Reranker:
    """Build the reranker `name` with default settings except for `knobs`.

    Raises:
      ValueError: the name is not in `RERANKERS`, or a knob is unknown or has a value outside its
        range.
    """
    entry = find("reranker", name, RERANKERS)
    return entry.build(task, read(entry.settings, knobs, name))
