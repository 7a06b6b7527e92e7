"""KuaiRand, tested on videos that were shown uniformly at random; or a simulation of it.

  python -m dnr_jax.main --config configs/kuairand.py --config.data.path=DIR

DIR is the folder of the CSV files of KuaiRand-Pure, -1K or -27K; docs/data.md says where to get
them. A retriever learns from the standard log up to the start of the random log, and the reranker
from its pools. Test requests are the videos that a user was shown at random (protocol
`random_exposure`). For another protocol, on both standard logs:
`--config.data.random_log=False --config.candidates.name=retrieved_pool`. Presets: as in
configs/interactions.py.
"""

from ml_collections import ConfigDict

from configs import common

EXPERIMENT = {
    "data": {"name": "kuairand", "random_log": True},
    "candidates": {"name": "random_exposure"},
}

# For two CPU cores and a few minutes.
PRESETS = common.presets(
    {"epochs": 10, "lambda_e": 5, "seeds": 3},
    reduced={"epochs": 6, "lambda_e": 3},
    smoke={
        "data": {"simulate": {"users": 120, "videos": 200}},
        "retrievers": {"matrix_factorization": {"width": 16, "epochs": 5}},
    },
)


def get_config(preset: str = "") -> ConfigDict:
    """Return the config of one of the presets above; "" is the default."""
    return common.experiment(EXPERIMENT, *common.chosen(PRESETS, preset, "kuairand.py"))
