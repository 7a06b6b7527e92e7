"""MovieLens with a matrix-factorisation retriever, under three candidate protocols.

  python -m dnr_jax.main --config configs/movielens.py --config.data.path=DIR

DIR holds ML-100K's `u.data`, or ML-1M's `ratings.dat`, `users.dat` and `movies.dat`, or a
`sequences.txt.gz` of item sequences without ratings. Without a path a small catalogue in ML-1M's
format is simulated. Choose the protocol by `--config.candidates.name`: retrieved_pool (default),
exposed_plus_sampled, or exposed_plus_retrieved (the published one, whose scores leak; see the
audit), or several of them with commas between. Presets: the default (small, 3 seeds), `smoke`
(under a minute), `rivals` (every model under every protocol, each with the same two trials of the
learning rate), `ablation` (DNR with parts left out, and over its weights), `paper` (the group's
settings at full size) and `rivals_paper` (every model at that size). Measured times and metrics
stand in docs/results.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(preset: str = "") -> ConfigDict:
    """Return the config of one preset, one of those above; "" is the default."""
    presets = {
        "": _small,
        "smoke": _smoke,
        "rivals": _rivals,
        "rivals_paper": _compare,
        "ablation": _ablation,
        "paper": lambda config: None,  # the knobs as they stand
    }
    if preset not in presets:
        known = ", ".join(name or "none" for name in presets)
        raise ValueError(f"movielens.py has no preset {preset!r}: choose one of {known}")
    config = common.get_config()
    config.candidates.name = "retrieved_pool"
    config.data = ConfigDict(
        {
            "name": "movielens",
            "path": "",  # folder or file; empty = simulate ML-1M's files once into the cache
            "history": 50,  # T, the user's last ratings before the list
            "positive_rating": 3.0,  # ratings from here on are positive feedback
            "core": 20,  # keep users and items with at least so many ratings
            "simulate": {"users": 400, "movies": 600, "seed": 0},  # used only while path is empty
        }
    )
    config.retriever = ConfigDict(
        {
            "name": "matrix_factorization",  # matrix_factorization | popularity | random
            "loss": "bpr",  # bpr | bce
            "width": 128,
            "epochs": 60,
            "batch_size": 2048,
            "learning_rate": 1e-3,
            "decay": 0.01,  # L2 on the embeddings of a batch
            "patience": 4,  # epochs without a better validation AUC; 0 = never stop early
            "cross_fit": 2,  # folds: training lists are scored by retrievers blind to them; 0 = off
            "score": "minmax",  # logit -> x: minmax (per request) | sigmoid | rank
        }
    )
    presets[preset](config)
    return config


def _small(config: ConfigDict) -> None:
    """Size model and training for two CPU cores and a few minutes."""
    common.shrink(config)
    config.train.update(epochs=10, lambda_e=5, seeds=3)


def _rivals(config: ConfigDict) -> None:
    """Compare all models at a size at which two CPU cores do it in a few hours."""
    _reduced(config)
    _compare(config)


def _compare(config: ConfigDict) -> None:
    """Compare all models, tuned alike, under all protocols."""
    config.candidates.name = "retrieved_pool,exposed_plus_sampled,exposed_plus_retrieved"
    common.compare(config)


def _ablation(config: ConfigDict) -> None:
    """Leave out parts of DNR one at a time, and vary its weights."""
    _reduced(config)
    for player in ("reranker", "generator"):
        # Of the two trials of `rivals` the one that PRM with scores chose on validation.
        config.optim[player].learning_rate = 9e-3
    common.ablate(config)


def _reduced(config: ConfigDict) -> None:
    """Size model and training for tables of many rows."""
    _small(config)
    config.reranker.update(width=16, feed_forward=32)
    config.train.update(epochs=6, lambda_e=3)


def _smoke(config: ConfigDict) -> None:
    """Shrink everything, and leave out rows, until a run takes under a minute."""
    _small(config)
    config.table = "random,popularity,retriever,reversed,dnr_b"
    config.retriever.update(width=16, epochs=5)
    config.reranker.update(width=16)
    config.train.update(epochs=2, lambda_e=1, batch_size=64, seeds=1)
