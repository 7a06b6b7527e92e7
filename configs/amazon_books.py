"""Amazon-Books as the paper prepares it: ratings of at least 3 are positive, 20-core, lists of 6.

  python -m dnr_jax.main --config configs/amazon_books.py --config.data.path=DIR

DIR holds one file of book reviews or ratings: `reviews_Books_5.json.gz` (2014), `Books_5.json.gz`
(2018) or `Books.jsonl.gz` (2023); docs/data.md says where to get them. The paper reports 35,736
users, 38,121 items and 311,386 lists, but neither the release nor the whole filter. So the counts
are compared, and a difference is a warning. Without a path, files in the format of 2014 are
simulated. Presets: as in configs/interactions.py.
"""

from ml_collections import ConfigDict

from configs import common

EXPERIMENT = {
    "data": {
        "name": "interactions",
        "repeats": "last",
        "published": "amazon_books",
        "simulate": {"layout": "amazon_2014_reviews"},
    },
    "candidates": {"name": "retrieved_pool"},
}

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
    return common.experiment(EXPERIMENT, *common.chosen(PRESETS, preset, "amazon_books.py"))
