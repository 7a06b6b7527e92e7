"""Your own logs, as one long table with one row per candidate, or a simulated table.

  python -m dnr_jax.main --config configs/table.py --config.data.path=LOGS

LOGS is a Parquet, Arrow or CSV file, or a folder of them, with the columns `request_id`, `item_id`,
`label` and, if there is a first stage, `score`. The columns `user_id`, `timestamp`, `position` and
features (`u_*`, `c_*`, `i_*`) are optional. Other names are mapped by
`--config.data.columns=request_id=session,score=bm25` or a file, `--config.data.schema=FILE.toml`.
Presets: the default (a small model, 2 seeds), `smoke` (one seed, a tiny table, about a minute),
`rivals` (every model, each with the same two trials of the learning rate), `ablation` (DNR without
some parts, and with different weights), `converged` (DNR's claim, with its controls, trained to
convergence), `variants` and `matching` (further controls, variants and list models, also to
convergence), `paper` (the group's settings at full size) and `rivals_paper` (every model at that
size).
"""

from ml_collections import ConfigDict

from configs import common

EXPERIMENT = {"data": {"name": "table"}, "candidates": {"name": "logged"}}

# For two CPU cores and a few minutes.
PRESETS = common.presets(
    {"epochs": 10, "lambda_e": 5, "seeds": 2},
    reduced={"seeds": 3},
    smoke={"data": {"simulate": {"requests": 600, "users": 50}}},
)


def get_config(preset: str = "") -> ConfigDict:
    """Return the config of one of the presets above; "" is the default."""
    return common.experiment(EXPERIMENT, *common.chosen(PRESETS, preset, "table.py"))
