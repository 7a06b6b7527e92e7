"""MovieLens with a matrix-factorisation retriever, under three candidate protocols.

  python -m dnr_jax.main --config configs/movielens.py --config.data.path=DIR

DIR holds ML-100K's `u.data`, or ML-1M's `ratings.dat`, `users.dat` and `movies.dat`, or a
`sequences.txt.gz` of item sequences without ratings. Without a path a small catalogue in ML-1M's
format is simulated. Choose the protocol by `--config.candidates.name`: retrieved_pool (default),
exposed_plus_sampled, or exposed_plus_retrieved (the published one, whose scores leak; see the
audit), or several of them separated by commas.

Presets: the default (small, 3 seeds), `smoke` (about a minute), `rivals` (every model under every
protocol, each with the same two trials of the learning rate), `ablation` (DNR without some parts,
and with different weights), `converged` (DNR's claim, with its controls, trained to convergence),
`first_stages` (PRM and SASRec on each retriever, at the size of `rivals`), `variants` (further
controls, and variants that the paper does not have, to convergence), `matching` (list models
without and with the product of history and candidate, to convergence), `paper` (the group's
settings at full size) and `rivals_paper` (every model at that size). Measured times and metrics are
in docs/results/.
"""

from ml_collections import ConfigDict

from configs import common

EXPERIMENT = {"data": {"name": "movielens"}, "candidates": {"name": "retrieved_pool"}}

# The better trial of PRM with scores on validation, of the two in `rivals`.
TUNED = {player: {"learning_rate": 9e-3} for player in ("reranker", "generator")}

# For two CPU cores: a few minutes, or a few hours for tables with many rows.
TRAIN = {"epochs": 10, "lambda_e": 5, "seeds": 3}
NARROW = (common.SMALL, {"train": TRAIN}, common.NARROW)
FIRST_STAGES = {"train": {"epochs": 6, "lambda_e": 3}, "optim": TUNED}
PRESETS = {
    **common.presets(
        TRAIN,
        reduced={"epochs": 6, "lambda_e": 3},
        smoke={"retrievers": {"matrix_factorization": {"width": 16, "epochs": 5}}},
        rivals_too=common.PROTOCOLS,
        ablation_too={"optim": TUNED},
    ),
    "first_stages": (*NARROW, FIRST_STAGES, common.first_stages()),
}


def get_config(preset: str = "") -> ConfigDict:
    """Return the config of one of the presets above; "" is the default."""
    return common.experiment(EXPERIMENT, *common.chosen(PRESETS, preset, "movielens.py"))
