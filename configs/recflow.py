"""RecFlow (Kuaishou's full funnel, arXiv 2410.20868), or a simulation of it with known truth.

  python -m dnr_jax.main --config configs/recflow.py                           simulated files
  python -m dnr_jax.main --config configs/recflow.py --config.data.path=DIR    your own download

Presets: the default (a small model, 2 seeds), `smoke` (one seed, a tiny simulation, about a
minute), `rivals` (every model, each with the same two trials of the learning rate), `ablation`
(DNR without some parts, and with different weights), `converged` (DNR's claim, with its controls,
trained to convergence), `variants` and `matching` (further controls, variants and list models, also
to convergence), `paper` (the group's settings at full size; meant for the real data on a GPU or
TPU) and `rivals_paper` (every model at that size). Measured times and metrics are in docs/results/.
"""

from ml_collections import ConfigDict

from configs import common

EXPERIMENT = {"data": {"name": "recflow"}, "candidates": {"name": "logged"}}

# There are a few hundred requests; small batches give enough steps to learn something.
SMOKE = {
    "data": {"simulate": {"users": 200, "videos": 1500, "days": 3}},
    "train": {"epochs": 4, "lambda_e": 2, "batch_size": 8},
}

# For two CPU cores: a few minutes including installation, or an hour for tables with many rows.
PRESETS = common.presets(
    {"epochs": 5, "lambda_e": 2, "seeds": 2, "batch_size": 32},
    reduced={"seeds": 3},
    smoke=SMOKE,
)


def get_config(preset: str = "") -> ConfigDict:
    """Return the config of one of the presets above; "" is the default."""
    return common.experiment(EXPERIMENT, *common.chosen(PRESETS, preset, "recflow.py"))
