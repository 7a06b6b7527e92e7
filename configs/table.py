"""Your own logs, one long table with a row a candidate, or a simulated one.

  python -m dnr_jax.main --config configs/table.py --config.data.path=LOGS

LOGS is a Parquet, Arrow or CSV file, or a folder of them, with the columns `request_id`, `item_id`,
`label` and, where there is a first stage, `score`; `user_id`, `timestamp`, `position` and features
(`u_*`, `c_*`, `i_*`) are read where they are there. Other names are mapped by
`--config.data.columns=request_id=session,score=bm25` or a file, `--config.data.schema=FILE.toml`.
Presets: the default (a small model, 2 seeds), `smoke` (one seed, a tiny table, about a minute),
`rivals` (every model, each with the same two trials of the learning rate), `ablation` (DNR with
parts left out, and over its weights), `converged` (what DNR claims, with its controls, trained
to convergence), `variants` and `matching` (further controls, forms and list models, trained so),
`paper` (the group's settings at full size) and `rivals_paper` (every model at that size).
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
    """Return what one of the presets above sets; "" is the default."""
    return common.experiment(EXPERIMENT, *common.chosen(PRESETS, preset, "table.py"))
