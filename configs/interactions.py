"""Interactions (user, item, rating?, time?) in any published format, or simulated ones.

  python -m dnr_jax.main --config configs/interactions.py --config.data.path=PATH

PATH is a file or a folder: MovieLens 100K to 32M, Amazon of 2014, 2018 or 2023 (reviews or
ratings), lines of `user item item ...`, or your own CSV, TSV, JSON lines or Parquet, with columns
named by `--config.data.columns=user=member,item=sku,time=bought_at`. The format is recognised; set
`--config.data.layout=amazon_2018_reviews`, for example, to choose one. A retriever chooses and
scores the candidates, under a protocol of `--config.candidates.name`. Presets: those of
configs/movielens.py except `first_stages`.
"""

from ml_collections import ConfigDict

from configs import common

EXPERIMENT = {"data": {"name": "interactions"}, "candidates": {"name": "retrieved_pool"}}

# For two CPU cores and a few minutes.
PRESETS = common.presets(
    {"epochs": 10, "lambda_e": 5, "seeds": 3},
    reduced={"epochs": 6, "lambda_e": 3},
    smoke={
        "data": {"simulate": {"users": 120, "catalogue": 200}},
        "retrievers": {"matrix_factorization": {"width": 16, "epochs": 5}},
    },
    rivals_too=common.PROTOCOLS,
)


def get_config(preset: str = "") -> ConfigDict:
    """Return the config of one of the presets above; "" is the default."""
    return common.experiment(EXPERIMENT, *common.chosen(PRESETS, preset, "interactions.py"))
