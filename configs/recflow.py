"""RecFlow (Kuaishou's full funnel, arXiv 2410.20868), or a simulation of it with known truth.

  python -m dnr_jax.main --config configs/recflow.py                           simulated files
  python -m dnr_jax.main --config configs/recflow.py --config.data.path=DIR    your own download

Presets: the default (a small model, 2 seeds), `smoke` (one seed, a tiny simulation, under a
minute), `rivals` (every model, each with the same two trials of the learning rate), `ablation`
(DNR with parts left out, and over its weights), `paper` (the group's settings at full size; meant
for the real data on a GPU or TPU) and `rivals_paper` (every model at that size). Measured times and
metrics are in docs/results/.
"""

from ml_collections import ConfigDict

from configs import common

EXPERIMENT = {"data": {"name": "recflow"}, "candidates": {"name": "logged"}}

# For two CPU cores: a few minutes, installation included, and an hour for tables of many rows.
SMALL = (common.SMALL, {"train": {"epochs": 5, "lambda_e": 2, "seeds": 2, "batch_size": 32}})
REDUCED = (*SMALL, common.NARROW, {"train": {"seeds": 3}})
SMOKE = {
    "table": "random,popularity,retriever,reversed,dnr_b",
    "data": {"simulate": {"users": 200, "videos": 1500, "days": 3}},
    "reranker": {"width": 16},
    "train": {"epochs": 2, "lambda_e": 1, "batch_size": 64, "seeds": 1},
}

PRESETS = {
    "": SMALL,
    "smoke": (*SMALL, SMOKE),
    "rivals": (*REDUCED, common.rivals()),
    "rivals_paper": (common.rivals(),),
    "ablation": (*REDUCED, common.ablation(epochs=5)),
    "paper": (),  # the defaults
}


def get_config(preset: str = "") -> ConfigDict:
    """Return what one of the presets above sets; "" is the default."""
    return common.experiment(EXPERIMENT, *common.chosen(PRESETS, preset, "recflow.py"))
