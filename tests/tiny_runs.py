"""A table small enough to be trained whole within a test run, on ratings made by hand."""

import numpy as np
import pytest
from linear_reranker import LINEAR

from configs import common, movielens
from dnr_jax import experiment
from dnr_jax.rerankers import RERANKERS

USERS, ITEMS, RATINGS, SEEDS = 40, 60, 32, 2


def write_ratings(folder):
    """Write `u.data` in MovieLens-100K's layout: each user likes the items near a taste."""
    draw = np.random.default_rng(0)
    folder.mkdir()
    taste, place = draw.normal(size=(USERS, 4)), draw.normal(size=(ITEMS, 4))
    lines = []
    for user in range(USERS):
        met = draw.permutation(ITEMS)[:RATINGS]
        liking = 3.0 + place[met] @ taste[user] + draw.normal(0, 0.5, RATINGS)
        stars = np.clip(np.rint(liking), 1, 5).astype(int)
        lines += [
            f"{user + 1}\t{item + 1}\t{s}\t{1000 * n}"
            for n, (item, s) in enumerate(zip(met, stars, strict=True))
        ]
    (folder / "u.data").write_text("\n".join(lines) + "\n")
    return folder


def merged(base, changes):
    """Copy nested dicts with `changes` applied."""
    both = dict(base)
    for name, value in changes.items():
        both[name] = merged(base.get(name, {}), value) if isinstance(value, dict) else value
    return both


def tiny_config(root, **changes):
    """Return a config of the whole table at the smallest size that still has every part.

    Args:
      root: holds the ratings and the cache.
      changes: what else differs, as nested dicts.
    """
    config = movielens.get_config("smoke").to_dict()
    small = {
        "cache": str(root / "cache"),
        "table": ",".join(common.DEFAULT_TABLE),
        "data": {"path": str(root / "ratings"), "history": 4, "core": 5},
        "candidates": {"name": "exposed_plus_sampled", "size": 12},
        "retrievers": {"matrix_factorization": {"width": 8, "epochs": 1}},
        "reranker": {"width": 8, "heads": 1, "feed_forward": 8},
        "generator": {"width": 8, "embedding_width": 4},
        "train": {"batch_size": 32, "seeds": SEEDS},
    }
    return merged(merged(config, small), changes)


def run_linear(config, folder):
    """Run a table of the linear reranker; for fixtures that outlive one test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RERANKERS, "linear", LINEAR)
        experiment.run_all(config, folder)
    return folder
