"""MovieLens with a matrix-factorisation retriever, under three candidate protocols.

  python -m dnr_jax.main --config configs/movielens.py --config.data.path=DIR

DIR holds ML-100K's `u.data`, or ML-1M's `ratings.dat`, `users.dat` and `movies.dat`, or a
`sequences.txt.gz` of item sequences without ratings. Without a path a small catalogue in ML-1M's
format is simulated. Choose the protocol by `--config.candidates.name`: retrieved_pool (default),
exposed_plus_sampled, or exposed_plus_retrieved (the published one, whose scores leak; see the
audit), or several of them with commas between. Presets: the default (small, 3 seeds), `smoke`
(under a minute), `rivals` (every model under every protocol, each with the same two trials of the
learning rate), `ablation` (DNR with parts left out, and over its weights), `converged` (what DNR
claims, with its controls, trained until validation improves no more), `variants` (further controls
and forms that the paper does not have, trained so), `paper` (the group's settings at full size) and
`rivals_paper` (every model at that size). Measured times and metrics are in docs/results/.
"""

from ml_collections import ConfigDict

from configs import common

EXPERIMENT = {"data": {"name": "movielens"}, "candidates": {"name": "retrieved_pool"}}
PROTOCOLS = {"candidates": {"name": "retrieved_pool,exposed_plus_sampled,exposed_plus_retrieved"}}

# For two CPU cores: a few minutes, and a few hours for tables of many rows.
SMALL = (common.SMALL, {"train": {"epochs": 10, "lambda_e": 5, "seeds": 3}})
REDUCED = (*SMALL, common.NARROW, {"train": {"epochs": 6, "lambda_e": 3}})
SMOKE = {
    "table": "random,popularity,retriever,reversed,dnr_b",
    "retrievers": {"matrix_factorization": {"width": 16, "epochs": 5}},
    "reranker": {"width": 16},
    "train": {"epochs": 2, "lambda_e": 1, "batch_size": 64, "seeds": 1},
}
# Of the two trials of `rivals` the one that PRM with scores chose on validation.
TUNED = {player: {"learning_rate": 9e-3} for player in ("reranker", "generator")}

PRESETS = {
    "": SMALL,
    "smoke": (*SMALL, SMOKE),
    "rivals": (*REDUCED, PROTOCOLS, common.rivals()),
    "rivals_paper": (PROTOCOLS, common.rivals()),
    "ablation": (*REDUCED, {"optim": TUNED}, common.ablation(epochs=6)),
    "converged": (*SMALL, common.NARROW, common.converged()),
    "variants": (*SMALL, common.NARROW, common.converged(common.VARIANTS_TABLE)),
    "paper": (),  # the defaults
}


def get_config(preset: str = "") -> ConfigDict:
    """Return what one of the presets above sets; "" is the default."""
    return common.experiment(EXPERIMENT, *common.chosen(PRESETS, preset, "movielens.py"))
