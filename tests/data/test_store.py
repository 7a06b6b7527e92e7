"""Prepared arrays: complete or absent, reused when nothing changed, refused when torn."""

import jax
import numpy as np
import pytest

from dnr_jax.data import store
from dnr_jax.types import Batch, FeatureSpec, Request

SPEC = FeatureSpec(("user_id",), (), ("item_id",), ("item_id",), {"user_id": 9, "item_id": 20})


def chunk(requests=4, candidates=3, seed=0):
    rng = np.random.default_rng(seed)
    where = np.ones((requests, candidates), bool)
    request = Request(
        index=np.arange(requests, dtype=np.uint32),
        user=rng.integers(2, 9, (requests, 1), np.int32),
        context=np.zeros((requests, 0), np.int32),
        history=rng.integers(2, 20, (requests, 5, 1), np.int32),
        history_where=np.ones((requests, 5), bool),
        candidates=rng.integers(2, 20, (requests, candidates, 1), np.int32),
        where=where,
    )
    scores = rng.random((requests, candidates), np.float32)
    labels = (scores > 0.5).astype(np.float32)
    slate = np.full((requests, 2), -1, np.int32)
    batch = Batch(request, scores, labels, where, slate, where.astype(np.float32))
    truth = np.full((requests, candidates), np.nan, np.float32)
    return store.Split(batch, np.arange(requests), labels.sum(1).astype(np.int32), truth)


def fill(writer, *, sizes=(4, 2)):
    for split in store.SPLITS:
        for seed, size in enumerate(sizes):
            writer.append(split, chunk(size, seed=seed))
    writer.finish(SPEC, np.arange(20), np.ones((20, 2)), {"rows": 6})


def test_chunks_come_back_as_one_split(tmp_path):
    prepared = store.prepare(tmp_path, {"a": 1}, fill)
    assert prepared.spec == SPEC
    assert prepared.report == {"rows": 6}
    expected = jax.tree.map(lambda a, b: np.concatenate([a, b]), chunk(4, seed=0), chunk(2, seed=1))
    for split in store.SPLITS:
        jax.tree.map(np.testing.assert_array_equal, prepared.splits[split], expected)
    assert isinstance(prepared.splits["train"].batch.scores, np.memmap)


def test_a_second_run_reuses_the_arrays_and_a_changed_recipe_does_not(tmp_path):
    first = store.prepare(tmp_path, {"a": 1}, fill)

    def never(writer):
        raise AssertionError("the arrays were built twice")

    assert store.prepare(tmp_path, {"a": 1}, never).fingerprint == first.fingerprint
    assert store.prepare(tmp_path, {"a": 2}, fill).fingerprint != first.fingerprint


def test_a_failed_build_leaves_nothing(tmp_path):
    def broken(writer):
        writer.append("train", chunk())
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        store.prepare(tmp_path, {}, broken)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_split_is_named(tmp_path):
    def partial(writer):
        writer.append("train", chunk())
        writer.finish(SPEC, np.zeros(20), np.zeros((20, 2)), {})

    with pytest.raises(ValueError, match=r"no requests for split\(s\) \['valid', 'test'\]"):
        store.prepare(tmp_path, {}, partial)


def test_a_torn_array_names_the_cure(tmp_path):
    folder = tmp_path / store.prepare(tmp_path, {}, fill).fingerprint
    path = folder / "test.scores.bin"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(
        ValueError, match=r"holds 69 bytes, its manifest says 72: delete .* and run"
    ):
        store.load(folder)


@pytest.mark.parametrize("name", ["scores", "labels"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01])
def test_values_outside_the_unit_interval_are_refused(tmp_path, name, value):
    bad = chunk()
    getattr(bad.batch, name)[2, 1] = value
    writer = store.Writer(tmp_path / "w")
    with pytest.raises(ValueError, match=rf"train: request 2 has {name[:-1]} {value:g}"):
        writer.append("train", bad)
    bad.batch.request.where[2, 1] = False  # padding may hold anything
    writer.append("train", bad)


def test_chunks_must_agree(tmp_path):
    writer = store.Writer(tmp_path / "w")
    writer.append("train", chunk(candidates=3))
    with pytest.raises(ValueError, match="earlier ones"):
        writer.append("train", chunk(candidates=4))
    with pytest.raises(ValueError, match="split 'dev' is not one of"):
        writer.append("dev", chunk())
