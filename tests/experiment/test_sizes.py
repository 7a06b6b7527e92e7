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
    with pytest.raises(
        ValueError, match=r"'plain' does not fit .* GiB for the data, .*; set config"
    ):
        check(30_000, reranker={"width": 1})
    check(30_000, reranker={"width": 1}, train={"stream": 1})


def test_an_absurd_width_is_refused_before_training(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "assemble", None)
    cures = (
        r"set config\.optim\.reranker\.tables=rowwise_adagrad, or a smaller config\.reranker\.wid"
    )
    with pytest.raises(ValueError, match=rf"GiB for embedding tables of the reranker, .*; {cures}"):
        experiment.run_all(tiny(reranker={"width": 2**30}), tmp_path / "run")


def test_a_table_over_several_devices_is_divided(check, monkeypatch):
    held = {"train": {"stream": 1, "micro_batch": 8}, "table": "score"}
    with pytest.raises(ValueError, match="does not fit"):
        check(20_000, **held, devices={"shard_tables": True})
    monkeypatch.setattr(sizes.jax, "device_count", lambda: 8)
    check(20_000, **held, devices={"shard_tables": True})


@pytest.fixture
def tables(tiny):
    """Estimate the bytes of tables of one copy, by updates, players and seeds."""

    def make(**changes):
        (plan,) = make_plan(tiny(**changes))
        prepared, row = datasets.prepare(plan.data), plan.rows[-1]
        return [p.bytes for p in sizes._parts(row, plan, prepared) if "tables" in p.words], prepared

    return make


@pytest.mark.parametrize(
    ("updates", "seeds", "reranker", "generator"),
    [
        # Values and two moments, the best values, and a gradient with its update, or the next best.
        ("dense", 1, 3 + 1 + 2, 3),
        ("dense", 3, 9 + 3 + 3, 9),
        ("lazy_adam", 1, 3 + 1 + 1, 3),
        # Of the moments a number a row of 8, and of 4.
        ("rowwise_adagrad", 2, 2 * (1 + 1 / 8) + 2 + 2, 2 * (1 + 1 / 4)),
    ],
)
def test_copies_of_tables_by_how_they_are_updated(tables, updates, seeds, reranker, generator):
    found, prepared = tables(
        table="dnr_b",
        reranker={"width": 8},
        generator={"embedding_width": 4},
        optim={"reranker": {"tables": updates}, "generator": {"tables": updates}},
        train={"seeds": seeds},
    )
    sizes_ = prepared.spec.sizes
    pair = sizes_[prepared.spec.user[0]] + sizes_[prepared.spec.item[0]]
    assert found == [sum(sizes_.values()) * 8 * 4 * reranker, pair * 4 * 4 * generator]


def test_the_two_knobs_that_help_are_those_of_the_largest_part(check, monkeypatch):
    held = {"train": {"stream": 1}, "table": "score", "reranker": {"width": 512}}
    sparse = held | {"optim": {"reranker": {"tables": "rowwise_adagrad"}}}
    with pytest.raises(ValueError, match=r"tables=rowwise_adagrad, or a smaller config.reranker.w"):
        check(10_000, **held)
    with pytest.raises(ValueError, match=r"set a smaller config.reranker.width, or config.devices"):
        check(10_000, **sparse)
    monkeypatch.setattr(sizes.jax, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"shard_tables=True, or a smaller config.reranker.width"):
        check(10_000, **sparse)
