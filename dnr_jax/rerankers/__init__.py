"""Second-stage models: one paper a file or folder, all in the signature of `types.Reranker`."""

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
      settings: the class of its knobs; `Trunk` where it has none of its own.
      build: `build(task, settings)` makes the model.
      trains: False for scorers that learn nothing.
      needs_slate: its own training reads the displayed order, `Batch.slate`.
    """

    settings: type[Any]
    build: Callable[[Task, Any], Reranker]
    trains: bool = True
    needs_slate: bool = False


RERANKERS: dict[str, Entry] = {
    "advir": Entry(advir.AdvIRSettings, advir.advir),
    "caser": Entry(caser.CaserSettings, caser.caser),
    "dcdr": Entry(dcdr.DCDRSettings, dcdr.dcdr, needs_slate=True),
    "diffurec": Entry(diffurec.DiffuRecSettings, diffurec.diffurec),
    "dlcm": Entry(Trunk, dlcm.dlcm),
    "egrerank": Entry(egrerank.EGRerankSettings, egrerank.egrerank, needs_slate=True),
    "glorank": Entry(glorank.GloRankSettings, glorank.glorank, needs_slate=True),
    "goalrank": Entry(goalrank.GoalRankSettings, goalrank.goalrank, needs_slate=True),
    "gru4rec": Entry(Trunk, gru4rec.gru4rec),
    "hetcomp": Entry(hetcomp.HetCompSettings, hetcomp.hetcomp),
    "irgan": Entry(irgan.IRGANSettings, irgan.irgan),
    "matching_transformer": Entry(Trunk, matching_transformer.matching_transformer),
    "mge": Entry(mge.MGESettings, mge.mge, needs_slate=True),
    "midnn": Entry(Trunk, midnn.midnn),
    "mir": Entry(mir.MIRSettings, mir.mir),
    "mmr": Entry(mmr.MMRSettings, mmr.mmr, trains=False),
    "nar4rec": Entry(nar4rec.NAR4RecSettings, nar4rec.nar4rec, needs_slate=True),
    "pier": Entry(Trunk, pier.pier, needs_slate=True),
    "pier_group": Entry(prm.PRMSettings, pier_group.pier_group),
    "popularity": Entry(Settings, trivial.popularity, trains=False),
    "prm": Entry(prm.PRMSettings, prm.prm),
    "random": Entry(Settings, trivial.random, trains=False),
    "retriever": Entry(Settings, trivial.retriever, trains=False),
    "reversed": Entry(Settings, trivial.reversed_retriever, trains=False),
    "sasrec": Entry(Trunk, sasrec.sasrec),
    "setrank": Entry(setrank.SetRankSettings, setrank.setrank),
}


def build(name: str, task: Task, **knobs: Any) -> Reranker:
    """Build the reranker `name` with its default settings but for `knobs`.

    Raises:
      ValueError: the name is not in `RERANKERS`, or a knob is unknown or has a value outside its
        range.
    """
    entry = find("reranker", name, RERANKERS)
    return entry.build(task, read(entry.settings, knobs, name))
