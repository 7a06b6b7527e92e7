"""Prepared arrays: complete or absent, reused when nothing changed, refused when torn."""

import json
import multiprocessing
import time

import jax
import numpy as np
import pytest

from dnr_jax import durable, sealed
from dnr_jax.data import array_files, folders, signatures, store
from dnr_jax.data.encoders import Encoders, Vocabulary
from dnr_jax.json_files import DamagedError
from dnr_jax.types import Batch, FeatureSpec, Request

SPEC = FeatureSpec(("user_id",), (), ("item_id",), ("item_id",), {"user_id": 9, "item_id": 20})

ENCODERS = Encoders(SPEC, 3, 5, {"item_id": Vocabulary(np.arange(18))}, {}, {})


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
    writer.finish(ENCODERS, np.arange(20), np.ones((20, 2)), {"rows": 6})


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


def test_seconds_are_kept_beside_the_arrays_and_change_nothing_else(tmp_path):
    folders = []
    for seconds in (1.5, 2.5):

        def build(writer, seconds=seconds):
            writer.write_timings(part=seconds)
            fill(writer)

        prepared = store.prepare(tmp_path / str(seconds), {"a": 1}, build)
        assert prepared.timings == {"part": seconds}
        folder = tmp_path / str(seconds) / prepared.fingerprint
        folders.append({p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    first, second = folders
    assert [name for name in first if first[name] != second[name]] == [store.TIMINGS]
    assert store.prepare(tmp_path, {"a": 1}, fill).timings == {}


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
        writer.finish(ENCODERS, np.zeros(20), np.zeros((20, 2)), {})

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


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize(
    "name", ["test.labels.bin", "train.scores.bin", "manifest.json", "encoders/keys.item_id.npy"]
)
@pytest.mark.parametrize("harm", [flip, zero, cut, lambda path: path.unlink()])
def test_what_is_damaged_is_made_anew(tmp_path, monkeypatch, caplog, name, harm):
    first = store.prepare(tmp_path, {"a": 1}, fill)
    kept = {p.name: p.read_bytes() for p in (tmp_path / first.fingerprint).glob("*.bin")}
    harm(tmp_path / first.fingerprint / name)
    monkeypatch.setattr(store, "_checked", set())  # as in a new process
    again = store.prepare(tmp_path, {"a": 1}, fill)
    assert "prepared data is damaged and is rebuilt" in caplog.text
    assert {p.name: p.read_bytes() for p in (tmp_path / again.fingerprint).glob("*.bin")} == kept
    assert [p.name for p in tmp_path.iterdir()] == [first.fingerprint]


@pytest.mark.parametrize(
    "change",
    [
        {"../x": ["<f4", [1], ""]},
        {"/etc/x": ["<f4", [1], ""]},
        {"x": ["O", [1], ""]},
        {"x": ["|V8", [1], ""]},
        {"x": [[["a", "O"]], [1], ""]},
        {"x": ["<f4", [-1], ""]},
        {"x": ["<f4", [2**70], ""]},
        {"x": ["<f4", [1.5], ""]},
        {"x": ["<f4"]},
        {"x": None},
        [],
    ],
)
def test_a_manifest_is_trusted_with_plain_names_and_numbers_only(tmp_path, change):
    folder = tmp_path / store.prepare(tmp_path, {}, fill).fingerprint
    file = folder / store.MANIFEST
    content = json.loads(file.read_text())
    del content["seal"]
    content["arrays"] = content["arrays"] | change if isinstance(change, dict) else change
    sealed.write(file, content)
    with pytest.raises(DamagedError, match="delete its folder and run again"):
        store.load(folder)


def test_hashes_are_checked_once_a_process(tmp_path, monkeypatch):
    store.prepare(tmp_path, {}, fill)
    monkeypatch.setattr(array_files, "check_hashes", None)  # another check would fail
    store.prepare(tmp_path, {}, fill)


def build_slowly(arguments):
    cache, number = arguments

    def slow(writer):
        (cache / f"built-{number}").touch()
        time.sleep(0.3)
        fill(writer)

    return store.prepare(cache, {}, slow).report


def test_of_many_processes_one_builds(tmp_path):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        found = pool.map(build_slowly, [(tmp_path, number) for number in range(4)])
    assert found == [{"rows": 6}] * 4
    assert len(list(tmp_path.glob("built-*"))) == 1


def test_leftovers_of_killed_preparations_are_swept(tmp_path):
    names = (signatures.fingerprint({}), "a" * 16, "b" * 16)
    own, other, alive = (durable.unfinished(tmp_path / name) for name in names)
    foreign = tmp_path / ".git-objects"
    for folder in (own, other, alive, foreign):
        (folder / "inner").mkdir(parents=True)
    with folders._lock(tmp_path / ("b" * 16), wait=True):
        store.prepare(tmp_path, {}, fill)
    left = {path for path in tmp_path.iterdir() if path.name.startswith(".")}
    assert left == {alive, foreign}
