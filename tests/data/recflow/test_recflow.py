"""The loader on simulated files: contract of the arrays, splits, policies, no leak."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
import recflow_cases
from recflow_cases import DEFAULTS

from dnr_jax.data import recflow, store
from dnr_jax.data.recflow import rows
from dnr_jax.data.recflow.features import HISTORY, ITEM
from dnr_jax.data.recflow.settings import RecFlowSimulation
from dnr_jax.data.recflow.simulator import simulate
from dnr_jax.data.recflow.simulator.writer import Quirks

WORLD = RecFlowSimulation(
    users=60, videos=800, days=4, requests_per_user_day=2.0, noise=1.0, seed=3
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recflow") / "sim"
    simulate(path, WORLD, progress=False)
    return path


def prepare(cache, folder, **change):
    return recflow_cases.prepare(cache, {"folder": str(folder), "change": change}, folder, **change)


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("cache"), folder)


@pytest.fixture(scope="module")
def filled(folder, tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("cache"), folder, pool="fill", size=60)


@pytest.mark.parametrize("split", store.SPLITS)
def test_arrays_keep_the_contract(prepared, split):
    data = prepared.splits[split]
    batch, request = data.batch, data.batch.request
    count = len(data.request_id)
    np.testing.assert_array_equal(request.index, np.arange(count, dtype=np.uint32))
    kinds = {
        "int32": (request.user, request.context, request.history, request.candidates, batch.slate),
        "bool": (request.where, request.history_where, batch.exposed),
        "float32": (batch.scores, batch.labels, batch.weights, data.truth),
        "uint32": (request.index,),
    }
    assert all(a.dtype == kind for kind, arrays in kinds.items() for a in arrays)
    assert data.request_id.dtype == np.int64
    assert data.positives.dtype == np.int32
    assert request.candidates.shape == (count, 50, len(ITEM))
    assert request.history.shape == (count, 20, len(HISTORY))
    assert request.user.shape == (count, 5)
    assert request.context.shape == (count, 3)
    assert batch.slate.shape == (count, 6)
    where = np.asarray(request.where)
    assert ((request.candidates >= 1).all(-1) == where).all()
    assert ((request.history >= 1).all(-1) == request.history_where).all()
    assert (np.diff(request.history_where.astype(int), axis=1) >= 0).all()  # left-padded
    for array in (batch.scores, batch.labels, batch.weights, batch.exposed):
        assert (array[~where] == 0).all()
    assert np.isfinite(batch.scores).all()
    assert ((batch.scores >= 0) & (batch.scores <= 1)).all()
    assert (batch.labels[~batch.exposed] == 0).all()
    assert batch.exposed.any(axis=1).all()
    np.testing.assert_array_equal(data.positives, (batch.labels > 0.5).sum(axis=1))
    assert (np.isfinite(data.truth) == where).all()
    for column, name in enumerate(ITEM):
        assert request.candidates[..., column].max() < prepared.spec.sizes[name]
    for column, name in enumerate(HISTORY):
        assert request.history[..., column].max(initial=0) < prepared.spec.sizes[name]


def test_slate_is_the_shown_list(prepared):
    batch = prepared.splits["test"].batch
    for slate, exposed in zip(batch.slate, batch.exposed, strict=True):
        assert sorted(slate[slate >= 0]) == sorted(np.flatnonzero(exposed))
        assert (np.diff((slate < 0).astype(int)) >= 0).all()


def test_slate_follows_rerank_index(prepared, folder):
    data = prepared.splits["test"]
    raw = pl.read_ipc(folder / "all_stage" / "2024-02-18.feather").filter(pl.col("realshow") == 1)
    raw = raw.sort("request_id", "rerank_index")
    videos = data.batch.request.candidates[..., 0]
    popular = {}
    for row in range(0, len(data.request_id), 5):
        expected = raw.filter(pl.col("request_id") == data.request_id[row])["video_id"].to_list()
        slate = data.batch.slate[row]
        for raw_id, encoded in zip(expected, videos[row][slate[slate >= 0]], strict=True):
            if encoded > 1:  # one encoding for one raw id
                assert popular.setdefault(raw_id, encoded) == encoded
    assert len(set(popular.values())) == len(popular) > 10


def test_days_make_the_splits(prepared, folder):
    last = pl.read_ipc(folder / "all_stage" / "2024-02-18.feather")["request_id"].unique()
    valid = pl.read_ipc(folder / "all_stage" / "2024-02-17.feather")["request_id"].unique()
    assert set(prepared.splits["test"].request_id) == set(last)
    assert set(prepared.splits["valid"].request_id) == set(valid)
    assert max(prepared.splits["train"].request_id) < min(valid)


def test_train_requests_have_both_labels_and_test_requests_all_stay(filled):
    train, test = filled.splits["train"].batch, filled.splits["test"]
    assert (train.labels > 0.5).any(axis=1).all()
    assert ((train.labels <= 0.5) & train.request.where).any(axis=1).all()
    assert (test.positives == 0).any()


def test_strict_pool_stops_where_fill_goes_on(prepared, filled):
    strict, fill = (p.splits["test"].batch.request.where.sum(1) for p in (prepared, filled))
    assert strict.max() <= 36 < fill.min()
    assert prepared.report["splits"]["test"]["candidates"]["max"] == strict.max()
    shown = [p.splits["test"].batch.exposed.sum(1) for p in (prepared, filled)]
    np.testing.assert_array_equal(*shown)


def test_small_pool_keeps_shown_rows_first(folder, tmp_path):
    data = prepare(tmp_path, folder, size=6).splits["test"]
    assert data.batch.request.where.all()
    assert data.positives.sum() == (data.batch.labels > 0.5).sum()


def test_a_pool_is_chosen_by_stage_then_place_then_draw():
    draw = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "request_id": draw.integers(0, 40, 900) * 10**12,
            "video_id": np.arange(900),
            "priority": draw.integers(0, 4, 900).astype(np.int8),
            "shown_rank": draw.permuted(np.resize([1.0, 2.0, 7.0, 500.0, np.nan], 900)),
            "draw0": draw.integers(0, 2**64, 900, np.uint64),
        }
    ).with_columns(realshow=pl.col("priority") == 0, shown_rank=pl.col("shown_rank").fill_nan(None))

    def turn(one):
        place = (one["shown_rank"] or 501) if one["realshow"] else 0
        return one["priority"], place, one["draw0"]

    requests = frame.partition_by("request_id")
    first = [sorted(own.to_dicts(), key=turn)[:7] for own in requests]
    expected = {one["video_id"] for own in first for one in own}
    assert set(rows._choose(frame, 7)["video_id"]) == expected
    assert rows._choose(frame[:0], 7).is_empty()


def test_position_says_nothing(filled):
    """Shown rows and positives are spread evenly over the candidate positions."""
    batch = filled.splits["train"].batch
    where = np.asarray(batch.request.where)
    place = np.broadcast_to(np.arange(where.shape[1]) / where.sum(1, keepdims=True), where.shape)
    for marked in (batch.exposed, batch.labels > 0.5):
        mean, count = place[marked].mean(), marked.sum()
        assert abs(mean - 0.5) < 4 * np.sqrt(1 / 12 / count) + 0.01
    assert abs(np.corrcoef(place[where], batch.scores[where])[0, 1]) < 0.05


def test_scores_agree_with_truth_and_rank(prepared):
    data = prepared.splits["test"]
    where = np.asarray(data.batch.request.where)
    assert np.corrcoef(data.batch.scores[where], data.truth[where])[0, 1] > 0.3


def test_exposure_policies(folder, tmp_path):
    zero, mask, weight = (
        prepare(tmp_path, folder, unexposed=u).splits["test"].batch
        for u in ("zero", "mask", "weight:0.3")
    )
    hidden = np.asarray(zero.request.where) & ~np.asarray(zero.exposed)
    for batch, expected in ((zero, 1.0), (mask, 0.0), (weight, 0.3)):
        assert (batch.weights[batch.exposed] == 1).all()
        np.testing.assert_allclose(batch.weights[hidden], expected)


def test_masked_training_needs_a_shown_negative(folder, tmp_path):
    batch = prepare(tmp_path, folder, unexposed="mask").splits["train"].batch
    assert (batch.exposed & (batch.labels <= 0.5)).any(axis=1).all()


def test_label_policies(folder, tmp_path):
    views = prepare(tmp_path, folder).splits["test"].batch.labels
    graded = prepare(tmp_path, folder, label="graded").splits["test"].batch.labels
    both = prepare(tmp_path, folder, label="effective_view:3,long_view:1").splits["test"].batch
    assert set(np.unique(graded)) <= set(np.float32([0, 0.6, 0.8, 1]))
    assert ((graded > 0.5) >= (views > 0.5)).all()
    assert set(np.unique(both.labels)) == {0, 0.75, 1}
    np.testing.assert_array_equal(both.labels > 0, views > 0)


@pytest.mark.parametrize("score", ["linear", "dcg", "exp", "quantile", "calibrated", "tier"])
def test_every_score_reaches_the_arrays(folder, tmp_path, score):
    batch = prepare(tmp_path, folder, score=score, pool="fill").splits["test"].batch
    scores = batch.scores[np.asarray(batch.request.where)]
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores.std() > 0.03


def test_jitter_breaks_ties(folder, tmp_path):
    ties = {}
    for jitter in (False, True):
        batch = prepare(tmp_path, folder, pool="fill", jitter=jitter).splits["test"].batch
        rows = zip(batch.scores, np.asarray(batch.request.where), strict=True)
        ties[jitter] = np.mean([where.sum() - len(np.unique(x[where])) for x, where in rows])
    assert ties[False] > 5 > 0.1 > ties[True]


def test_popularity_counts_train_views(prepared, folder):
    files = [folder / "all_stage" / f"2024-02-{day}.feather" for day in (15, 16)]
    views = sum(pl.read_ipc(file)["effective_view"].sum() for file in files)
    assert prepared.item_popularity.sum() == views
    assert len(prepared.item_popularity) == prepared.spec.sizes["video_id"]


def test_item_vectors_are_one_unit_vector_a_category(prepared):
    vectors = prepared.item_vectors
    assert vectors.shape == (prepared.spec.sizes["video_id"], 16)
    np.testing.assert_allclose(np.linalg.norm(vectors[2:], axis=1), 1, rtol=1e-5)
    assert (vectors[:2] == 0).all()
    assert len(np.unique(vectors[2:], axis=0)) <= prepared.spec.sizes["category_level_two"] - 2


def test_min_count_and_hashing_bound_the_vocabularies(folder, tmp_path):
    rare = prepare(tmp_path, folder, min_count=8)
    full = prepare(tmp_path, folder)
    assert rare.spec.sizes["video_id"] < full.spec.sizes["video_id"]
    assert (rare.splits["train"].batch.request.candidates[..., 0] == 1).any()
    hashed = prepare(tmp_path, folder, hash_buckets=64)
    assert hashed.spec.sizes["video_id"] == hashed.spec.sizes["author_id"] == 66
    assert len(hashed.item_popularity) == 66
    assert len(np.unique(hashed.splits["test"].batch.request.candidates[..., 0])) > 50


def test_user_share_keeps_every_nth_user(folder, tmp_path):
    half = prepare(tmp_path, folder, user_share=0.5)
    raw = pl.read_ipc(folder / "all_stage" / "2024-02-18.feather")
    kept = raw.filter(pl.col("user_id") % 2 == 0)["request_id"].unique()
    assert set(half.splits["test"].request_id) == set(kept)


def test_days_option_and_chunks_do_not_change_the_rest(folder, tmp_path, monkeypatch):
    late = prepare(tmp_path, folder, days=3)
    assert late.report["days"] == ["2024-02-16", "2024-02-17", "2024-02-18"]
    whole = prepare(tmp_path, folder)
    monkeypatch.setattr("dnr_jax.data.recflow.arrays.CHUNK", 7)
    pieces = prepare(tmp_path / "pieces", folder)
    for split in store.SPLITS:
        a, b = (p.splits[split].batch for p in (whole, pieces))
        np.testing.assert_array_equal(a.request.candidates, b.request.candidates)
        np.testing.assert_array_equal(a.request.history, b.request.history)
        np.testing.assert_array_equal(a.request.index, b.request.index)
        np.testing.assert_array_equal(a.slate, b.slate)


def test_second_run_maps_the_same_arrays(folder, tmp_path):
    first = prepare(tmp_path, folder)
    second = prepare(tmp_path, folder)
    assert first.fingerprint == second.fingerprint
    assert isinstance(second.splits["train"].batch.scores, np.memmap)
    np.testing.assert_array_equal(
        first.splits["train"].batch.scores, second.splits["train"].batch.scores
    )
    json.dumps(second.report)


def test_quirks_do_not_change_the_arrays(folder, tmp_path):
    quirks = Quirks(-1, 0, True, True, True, True, False)
    simulate(tmp_path / "odd", WORLD, quirks=quirks, progress=False)
    plain, odd = prepare(tmp_path, folder), prepare(tmp_path, tmp_path / "odd")
    for split in store.SPLITS:
        a, b = plain.splits[split], odd.splits[split]
        np.testing.assert_array_equal(a.batch.scores, b.batch.scores)
        np.testing.assert_array_equal(a.batch.request.candidates, b.batch.request.candidates)
        np.testing.assert_array_equal(a.batch.request.history, b.batch.request.history)
    assert odd.report["rank_base"] == {"rank_index": 0, "rerank_index": 0}
    assert odd.report["stripped_columns"] == [" category_level_two"]


def test_nan_ranks_and_absent_stages_still_give_scores(tmp_path):
    quirks = Quirks(missing_index=float("nan"), absent_stages=True)
    simulate(tmp_path / "odd", WORLD, quirks=quirks, progress=False)
    batch = prepare(tmp_path, tmp_path / "odd", pool="fill", size=126).splits["test"].batch
    assert np.isfinite(batch.scores).all()
    sizes = batch.request.where.sum(axis=1)
    assert sizes.min() < 45 < 100 < sizes.max()


def test_no_train_of_the_logged_outcome(prepared):
    names = {*prepared.spec.user, *prepared.spec.context, *prepared.spec.item}
    forbidden = {"rerank_index", "rank_index", "realshow", "playing_time", "effective_view"}
    assert not names & forbidden


def test_inputs_list_what_is_read(folder):
    files = recflow.inputs(folder, dataclasses.replace(DEFAULTS, days=3))
    assert len(files) == 9
    assert {f.parent.name for f in files} == {"all_stage", "seq_effective_50_dict", "truth"}
    recflow.check(folder, DEFAULTS)
