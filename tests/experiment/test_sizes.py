"""Sizes that cannot work are refused before anything is allocated."""

import pytest

from dnr_jax import experiment
from dnr_jax.experiment import datasets, sizes
from dnr_jax.experiment.plan import make_plan


@pytest.fixture
def check(tiny):
    """Check the sizes of a table against a memory."""

    def make(memory, **changes):
        (plan,) = make_plan(tiny(**changes))
        sizes.check(plan, datasets.prepare(plan.data), memory)

    return make


def test_the_larger_the_memory_the_more_fits(check):
    check(2**30)
    with pytest.raises(ValueError, match=r"does not fit a device of 0\.00 GiB"):
        check(2**10)


def test_a_batch_larger_than_the_training_split(check):
    with pytest.raises(ValueError, match="only 120 requests: choose at most 120"):
        check(None, train={"batch_size": 5000})
    check(None, table="random", train={"batch_size": 5000})


def test_data_larger_than_the_memory_may_be_streamed(check):
    with pytest.raises(ValueError, match=r"'plain' does not fit .* GiB for the data \(set config"):
        check(30_000, reranker={"width": 1})
    check(30_000, reranker={"width": 1}, train={"stream": 1})


def test_an_absurd_width_is_refused_before_training(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "assemble", None)
    with pytest.raises(
        ValueError, match=r"does not fit .* GiB for embedding tables \(config.rerank"
    ):
        experiment.run_all(tiny(reranker={"width": 2**30}), tmp_path / "run")


def test_a_table_over_several_devices_is_divided(check, monkeypatch):
    held = {"train": {"stream": 1, "micro_batch": 8}, "table": "score"}
    with pytest.raises(ValueError, match="does not fit"):
        check(20_000, **held, devices={"shard_tables": True})
    monkeypatch.setattr(sizes.jax, "device_count", lambda: 8)
    check(20_000, **held, devices={"shard_tables": True})
