"""KuaiRand's logs, and test requests of what was shown at random. Simulated files only."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from dnr_jax.data import CandidateSettings, candidates, kuairand, lists, random_exposure
from dnr_jax.data.candidates import CandidateRule
from dnr_jax.data.encoders import KNOWN
from dnr_jax.data.kuairand import simulator
from dnr_jax.data.kuairand.settings import KuaiRandSettings, KuaiRandSimulation
from dnr_jax.data.store import Writer, load

SETTINGS = KuaiRandSettings(core=2, random_log=True)
SIZE, K = 12, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("kuairand") / "data"
    simulator.simulate(path, KuaiRandSimulation(users=30, videos=120, random=15))
    return path


@pytest.fixture(scope="module")
def logs(folder):
    return {path.stem: pl.read_csv(path) for path in folder.glob("log_*.csv")}


def test_without_the_random_log_both_standard_logs_are_read(folder, logs):
    events = kuairand.read(folder, dataclasses.replace(SETTINGS, random_log=False, core=0))
    standard = pl.concat(frame for name, frame in logs.items() if "standard" in name)
    expected = standard.sort("user_id", "time_ms").unique(["user_id", "video_id"], keep="first")
    assert events.random is None
    assert set(zip(events.user, events.item, events.label, strict=True)) == set(
        expected.select("user_id", "video_id", "is_click").rows()
    )
    assert events.item_features["author_id"][7] == "2"
    assert "," not in events.item_features["tag"][7]
    assert events.user_features["user_active_degree"][0] == "high_active"


def test_with_it_the_standard_logs_end_where_it_begins(folder, logs):
    events = kuairand.read(folder, SETTINGS)
    random = logs["log_random_4_22_to_5_08_pure"]
    assert events.time.max() < random["time_ms"].min() // 1000
    assert len(events.random.user) == len(random)
    assert events.report["rows_from_the_random_log_on"] > 0


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    events = kuairand.read(folder, SETTINGS)
    found = lists.build(events, slate=K, history=8)
    draw = np.random.default_rng(0).normal(size=len(found.catalogue.item_ids)).astype(np.float32)
    out = tmp_path_factory.mktemp("arrays")
    candidates.build(
        Writer(out),
        found,
        lambda users, rows: np.tile(draw, (len(users), 1)),
        CandidateRule(CandidateSettings(name="random_exposure", size=SIZE), "minmax", 0),
        item_vectors=np.zeros((len(draw), 2), np.float32),
        truth=None,
        report={},
        progress=False,
        random=events.random,
    )
    return events, found, load(out), draw


def test_test_requests_are_the_user_s_random_exposures(prepared):
    events, found, arrays, draw = prepared
    test, raw = arrays.splits["test"], found.catalogue
    met = lists.events(found, lists.TRAIN, lists.VALID, lists.TEST)
    inside = set(zip(raw.user_ids[met.user].tolist(), raw.item_ids[met.item].tolist(), strict=True))
    assert len(test.request_id) > 20
    for row, number in enumerate(test.request_id):
        user = raw.user_ids[found.user[number]]
        known = set(raw.item_ids[KNOWN:].tolist())
        own = {
            i: z
            for u, i, z in zip(
                events.random.user, events.random.item, events.random.label, strict=True
            )
            if u == user and i in known and (user, i) not in inside
        }
        where = test.batch.request.where[row]
        items = raw.item_ids[test.batch.request.candidates[row, where, 0]]
        assert len(items) == min(len(own), SIZE) == len(set(items.tolist()))
        labels = test.batch.labels[row, where]
        assert [own[i] for i in items.tolist()] == labels.tolist()
        assert test.positives[row] == sum(own.values())
        values = draw[test.batch.request.candidates[row, where, 0]]
        assert np.argmax(values) == np.argmax(test.batch.scores[row, where])
        np.testing.assert_array_equal(test.batch.exposed[row], where)
        slate = [n for n in test.batch.slate[row] if n >= 0]
        first = {
            i: t for i, t in zip(events.random.item, events.random.time, strict=True) if i in own
        }
        assert len(slate) == min(K, len(items))
        assert set(items[slate]) <= set(first)
        past = found.catalogue.item_ids[test.batch.request.history[row, -K:, 0]]
        np.testing.assert_array_equal(past, raw.item_ids[found.items[number]])


def test_train_and_valid_are_the_retrieved_pool(prepared):
    _, found, arrays, draw = prepared
    for split in ("train", "valid"):
        batch = arrays.splits[split].batch
        assert not batch.exposed.all()
        best = set(np.argsort(-draw[KNOWN:])[: 2 * SIZE] + KNOWN)
        assert set(batch.request.candidates[0, :, 0]) & best
    assert arrays.report["candidates"]["test_protocol"] == "random_exposure"
    assert found.split.max() == lists.TEST


def test_a_random_choice_is_left_of_more_than_fit():
    random = lists.Events(
        np.full(9, 2, np.int32), np.arange(2, 11), np.ones(9, np.float32), np.full(9, 4)
    )
    chosen = [
        random_exposure.choose(random, np.array([4]), size=3, slate=2, seed=s) for s in range(200)
    ]
    counts = np.bincount(np.concatenate([c[0][0] for c in chosen]), minlength=11)[2:]
    assert counts.sum() == 600
    # 200 draws of 3 in 9: binomial with mean 67 and deviation 6.7
    assert (np.abs(counts - 66.7) < 4 * 6.7).all()
    assert all(c[4][0] == 9 for c in chosen)


def test_faults_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no log_standard"):
        kuairand.read(tmp_path, SETTINGS)
    log = folder / "log_standard_4_08_to_4_21_pure.csv"
    copy = tmp_path / log.name
    copy.write_text(log.read_text())
    with pytest.raises(FileNotFoundError, match=r"random_log asks for"):
        kuairand.read(tmp_path, SETTINGS)
    (tmp_path / "log_standard_4_08_to_4_21_1k.csv").write_text(log.read_text())
    with pytest.raises(ValueError, match="logs of pure and 1k"):
        kuairand.inputs(tmp_path, SETTINGS)
    (tmp_path / "log_standard_4_08_to_4_21_1k.csv").unlink()
    copy.write_text(log.read_text().replace("video_id", "item_id"))
    with pytest.raises(ValueError, match="lacks the column"):
        kuairand.read(tmp_path, dataclasses.replace(SETTINGS, random_log=False))
    pl.read_csv(log).with_columns(is_click=None).write_csv(copy)
    with pytest.raises(ValueError, match="line 2 has no is_click"):
        kuairand.read(tmp_path, dataclasses.replace(SETTINGS, random_log=False))
    copy.write_text(log.read_text())
    (tmp_path / "log_random_4_22_to_5_08_pure.csv").write_text(log.read_text())
    with pytest.raises(ValueError, match="no row of the standard logs is left"):
        kuairand.read(tmp_path, SETTINGS)


def test_the_protocol_needs_a_random_log(folder, tmp_path):
    events = kuairand.read(folder, dataclasses.replace(SETTINGS, random_log=False))
    found = lists.build(events, slate=K, history=8)
    rule = CandidateRule(CandidateSettings(name="random_exposure"), "minmax", 0)
    with pytest.raises(ValueError, match=r"set data\.random_log"):
        candidates.build(
            *(Writer(tmp_path / "out"), found, None, rule),
            item_vectors=None,
            truth=None,
            report={},
            progress=False,
        )
