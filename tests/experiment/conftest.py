"""A table small enough to be trained whole within a test run, on ratings made by hand."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import common, movielens
from dnr_jax import experiment, reports
from dnr_jax.rerankers import RERANKERS

sys.path.insert(0, str(Path(__file__).parent))

from linear_reranker import LINEAR

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


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """The ratings and the cache that all runs of this folder use."""
    root = tmp_path_factory.mktemp("experiment")
    write_ratings(root / "ratings")
    return root


@pytest.fixture(scope="session")
def tiny(shared, quick):
    """Make a config of the whole table at the smallest size that still has every part."""

    def make(**changes):
        config = movielens.get_config("smoke").to_dict()
        small = {
            "cache": str(shared / "cache"),
            "table": ",".join(common.DEFAULT_TABLE),
            "data": {"path": str(shared / "ratings"), "history": 4, "core": 5},
            "candidates": {"name": "exposed_plus_sampled", "size": 12},
            "retrievers": {"matrix_factorization": {"width": 8, "epochs": 1}},
            "reranker": {"width": 8, "heads": 1, "feed_forward": 8},
            "generator": {"width": 8, "embedding_width": 4},
            "train": {"batch_size": 32, "seeds": SEEDS},
        }
        return merged(merged(config, small), changes)

    return make


@pytest.fixture(scope="session")
def quick():
    """Compile with few optimisations: on tiny arrays compiling takes nearly all the time."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(autouse=True)
def known_to_the_table(monkeypatch):
    monkeypatch.setitem(RERANKERS, "linear", LINEAR)


def run_linear(config, folder):
    """Run a table of the linear reranker; for fixtures that outlive one test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RERANKERS, "linear", LINEAR)
        experiment.run_all(config, folder)
    return folder


@pytest.fixture(scope="session")
def run_table():
    """Hand out `run_linear`."""
    return run_linear


@pytest.fixture(scope="session")
def finished(tiny, shared):
    """The run folder of a whole table, one epoch of each phase, finished and reported."""
    folder = run_linear(tiny(reranker={"name": "linear"}), shared / "finished")
    reports.write(folder)
    return folder


@pytest.fixture(scope="session")
def resumable(tiny):
    """The config of a run that needs both phases and has an earlier epoch to go on from."""
    return tiny(reranker={"name": "linear"}, table="retriever,dnr_b")


@pytest.fixture(scope="session")
def uninterrupted(resumable, shared):
    """The run folder of `resumable`, made in one go."""
    return run_linear(resumable, shared / "uninterrupted")
