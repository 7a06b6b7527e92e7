"""Runs that the tests of experiments share."""

from functools import partial

import jax
import pytest
from linear_reranker import LINEAR
from tiny_runs import run_linear, tiny_config, write_ratings

from dnr_jax import reports
from dnr_jax.rerankers import RERANKERS


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """The ratings and the cache that all runs of this folder use."""
    root = tmp_path_factory.mktemp("experiment")
    write_ratings(root / "ratings")
    return root


@pytest.fixture(scope="session")
def tiny(shared, quick):
    """Hand out `tiny_config` of the shared folder."""
    return partial(tiny_config, shared)


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
