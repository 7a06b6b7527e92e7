"""RecFlow (Kuaishou's full funnel, arXiv 2410.20868), or a simulation of it with known truth.

  python -m dnr_jax.main --config configs/recflow.py                           simulated files
  python -m dnr_jax.main --config configs/recflow.py --config.data.path=DIR    your own download

Presets: the default (a small model, 2 seeds), `smoke` (one seed, a tiny simulation, under a
minute), `rivals` (every model, each with the same two trials of the learning rate), `ablation`
(DNR with parts left out, and over its weights), `paper` (the group's settings at full size; meant
for the real data on a GPU or TPU) and `rivals_paper` (every model at that size). Measured times and
metrics stand in docs/results.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(preset: str = "") -> ConfigDict:
    """Return the config of one preset, one of those above; "" is the default."""
    presets = {
        "": _small,
        "smoke": _smoke,
        "rivals": _rivals,
        "rivals_paper": common.compare,  # all models, the other knobs as they stand
        "ablation": _ablation,
        "paper": lambda config: None,  # the knobs as they stand
    }
    if preset not in presets:
        known = ", ".join(name or "none" for name in presets)
        raise ValueError(f"recflow.py has no preset {preset!r}: choose one of {known}")
    config = common.get_config()
    config.candidates.name = "logged"
    config.data = ConfigDict(
        {
            "name": "recflow",
            "path": "",  # folder of RecFlow's files; empty = simulate them once into the cache
            "history": 50,  # T, last effective views of the user
            # rank_index -> x: log_rank | linear | dcg | exp | quantile | calibrated | tier
            "score": "log_rank",
            "tau": 50.0,  # score "exp" only: its decay in ranks
            "jitter": True,  # rows without a rank draw one in their stage's range, or they tie
            "pool": "fill",  # fill (up to N from all stages) | strict (rerank-stage rows only)
            "unexposed": "zero",  # zero (a negative) | mask (unjudged) | weight:0.3
            "label": "effective_view",  # a column, "effective_view:1,like:0.5", or graded
            "period": "all",  # all | first (the first collection period)
            "days": 0,  # keep only the last so many days; 0 = all
            "user_share": 1.0,  # 0.05 keeps every 20th user
            "min_count": 5,  # rarer videos and authors share the id "unknown"
            "hash_buckets": 0,  # > 0: hash videos and authors instead of a dictionary
            "vector_size": 16,  # length of the category vectors that diversity is measured on
            "simulate": {  # used only while path is empty
                "users": 400,
                "videos": 12000,
                "days": 7,
                "requests_per_user_day": 1.6,
                "seed": 0,
            },
        }
    )
    presets[preset](config)
    return config


def _small(config: ConfigDict) -> None:
    """Size model and training for two CPU cores and a few minutes, installation included."""
    common.shrink(config)
    config.train.update(epochs=5, lambda_e=2, seeds=2, batch_size=32)


def _rivals(config: ConfigDict) -> None:
    """Compare all models at a size at which two CPU cores do it in an hour."""
    _reduced(config)
    common.compare(config)


def _ablation(config: ConfigDict) -> None:
    """Leave out parts of DNR one at a time, and vary its weights."""
    _reduced(config)
    common.ablate(config)


def _reduced(config: ConfigDict) -> None:
    """Size model and training for tables of many rows."""
    _small(config)
    config.reranker.update(width=16, feed_forward=32)
    config.train.seeds = 3


def _smoke(config: ConfigDict) -> None:
    """Shrink everything, and leave out rows, until a run takes under a minute."""
    _small(config)
    config.table = "random,popularity,retriever,reversed,dnr_b"
    config.data.simulate.update(users=200, videos=1500, days=3)
    config.reranker.update(width=16)
    config.train.update(epochs=2, lambda_e=1, batch_size=64, seeds=1)
