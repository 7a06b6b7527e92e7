"""The arrays of a table hold what the table says: a slow reference, and each rule by itself."""

import numpy as np
import polars as pl
import pytest

from dnr_jax.data.encoders import load
from dnr_jax.data.store import SPLITS
from dnr_jax.data.table import simulator
from dnr_jax.data.table.requests import encode
from dnr_jax.data.table.settings import TableSimulation
from dnr_jax.evaluation.audit import audit
from tests.slow_table import slow_requests
from tests.table_cases import log, prepare


def raw_ids(prepared, column, codes):
    """Turn feature ids back into raw ones; None = unknown."""
    keys = [None, None, *prepared.encoders.vocabularies[column].keys.tolist()]
    return [keys[code] for code in np.ravel(codes)]


def cold_log():
    """Later requests have items and a user that training lacks."""
    return log(60, candidates=5, users=7).with_columns(
        item_id=pl.when(pl.col("request_id") > 50)
        .then(pl.col("item_id") + 4)
        .otherwise(pl.col("item_id")),
        user_id=pl.when(pl.col("request_id") > 56).then(99).otherwise(pl.col("user_id")),
    )


@pytest.mark.parametrize("size", [8, 4])
def test_arrays_hold_what_the_table_says(tmp_path, size):
    frame = cold_log()
    prepared = prepare(frame, tmp_path, size=size, history=3)
    split_of = {int(number): name for name in SPLITS for number in prepared.splits[name].request_id}
    assert len(split_of) == 60
    expected = slow_requests(frame, split_of=split_of, size=size, history=3)
    for name in SPLITS:
        split = prepared.splits[name]
        batch, request = split.batch, split.batch.request
        assert request.index.tolist() == list(range(len(split.request_id)))
        for row, number in enumerate(split.request_id.tolist()):
            wanted = expected[number]
            assert raw_ids(prepared, "user_id", request.user[row, 0]) == [wanted["user"]]
            events = request.history[row, request.history_where[row], 0]
            assert raw_ids(prepared, "item_id", events) == wanted["history"]
            assert request.where[row].sum() == len(wanted["candidates"])
            by_score = sorted(wanted["candidates"].values(), key=lambda c: -c["score"])
            order = np.argsort(-batch.scores[row][request.where[row]])
            items = raw_ids(prepared, "item_id", request.candidates[row, :, 0][order])
            names = sorted(wanted["candidates"], key=lambda i: -wanted["candidates"][i]["score"])
            for slot, item, one in zip(order, items, by_score, strict=True):
                assert (item is not None) == one["known"]
                np.testing.assert_allclose(batch.scores[row, slot], one["score"], atol=1e-5)
                assert batch.labels[row, slot] == one["label"]
                assert batch.weights[row, slot] == one["weight"]
                assert batch.exposed[row, slot] == one["exposed"]
            of_slot = dict(zip(order.tolist(), names, strict=True))
            slate = [of_slot[s] for s in batch.slate[row].tolist() if s >= 0]
            assert slate == wanted["slate"]


def test_the_audit_finds_no_leak_in_a_simulated_table(tmp_path):
    simulator.simulate(tmp_path / "log", TableSimulation(requests=600, users=50))
    prepared = prepare(tmp_path / "log", tmp_path, size=50, slate=6, history=10)
    found = audit(prepared, k=6, protocol="logged")
    assert [f["check"] for f in found["findings"] if f["level"] == "LEAK"] == []
    scorers = found["scorers"]["test"]
    assert scorers["retriever"]["auc"] > 0.6 > 0.4 > scorers["reversed"]["auc"]


def test_the_simulation_is_a_function_of_its_settings():
    settings = TableSimulation(requests=50)
    assert simulator.table(settings).equals(simulator.table(settings))
    other = simulator.table(TableSimulation(requests=50, seed=1))
    assert not simulator.table(settings).equals(other)


def test_a_bag_is_several_columns_of_one_vocabulary(tmp_path):
    tags = pl.when(pl.col("item_id") % 2 == 0).then(pl.lit([5, 9])).otherwise(pl.lit([9]))
    prepared = prepare(log(i_tags=tags), tmp_path)
    assert prepared.spec.item == ("item_id", "i_tags", "i_tags")
    assert prepared.spec.sizes["i_tags"] == 4
    request = prepared.splits["train"].batch.request
    items = np.array(raw_ids(prepared, "item_id", request.candidates[..., 0]), float)
    bags = request.candidates[..., 1:].reshape(-1, 2)
    np.testing.assert_array_equal(bags[items % 2 == 0], [[2, 3]] * int((items % 2 == 0).sum()))
    np.testing.assert_array_equal(bags[items % 2 == 1], [[3, 0]] * int((items % 2 == 1).sum()))


def test_values_that_training_lacks_or_has_seldom_are_unknown(tmp_path):
    city = pl.when(pl.col("request_id") >= 36).then(pl.lit("new")).otherwise(pl.lit("old"))
    prepared = prepare(log(c_city=city), tmp_path)
    assert set(prepared.splits["test"].batch.request.context[:, 0].tolist()) == {1}
    assert set(prepared.splits["train"].batch.request.context[:, 0].tolist()) == {2}
    seldom = prepare(log(), tmp_path, min_count=1000)
    assert seldom.spec.sizes["item_id"] == 2


def test_weights_and_propensities_weigh_judged_candidates(tmp_path):
    frame = log(weight=pl.lit(2.0), propensity=pl.lit(0.25))
    weights = prepare(frame, tmp_path, weight_cap=3.0).splits["train"].batch.weights
    assert set(np.unique(weights)) == {0.0, 6.0}


def test_unshown_candidates_with_a_label_have_their_own_weight(tmp_path):
    frame = log(label=pl.col("label").fill_null(0.0))
    batch = prepare(frame, tmp_path, unexposed=0.5).splits["train"].batch
    where = np.asarray(batch.request.where)
    assert set(batch.weights[where & ~batch.exposed]) == {0.5}
    assert set(batch.weights[where & batch.exposed]) == {1.0}


@pytest.mark.parametrize(
    ("grades", "expected"),
    [
        ("binary", {0.0, 1.0}),
        ("auto", {0.0, 1.0}),
        ("linear", {0.0, 0.5, 1.0}),
        ("exponential", {0.0, 0.2, 1.0}),
    ],
)
def test_graded_labels(tmp_path, grades, expected):
    frame = log(label=pl.when(pl.col("position") == 1).then(2.0).otherwise(pl.col("label") * 4))
    batch = prepare(frame, tmp_path, grades=grades).splits["train"].batch
    np.testing.assert_allclose(sorted(set(np.unique(batch.labels))), sorted(expected), atol=1e-6)


def test_several_labels_are_joined_by_their_weights(tmp_path):
    frame = log().with_columns(label_click=pl.col("label"), label_buy=pl.col("label") / 2)
    frame = frame.drop("label")
    equal = prepare(frame, tmp_path).splits["train"].batch
    assert set(np.unique(equal.labels)) == {0.0, 0.75}
    own = prepare(frame, tmp_path, labels="label_click:3,label_buy:1").splits["train"].batch
    assert set(np.unique(own.labels)) == {0.0, 0.875}


@pytest.mark.parametrize("score", ["minmax", "rank", "sigmoid"])
def test_scores_of_any_scale_lie_in_0_to_1_and_keep_their_order(tmp_path, score):
    frame = log(score=pl.col("score") * 20 - 9)
    batch = prepare(frame, tmp_path, score=score).splits["test"].batch
    raw = prepare(log(), tmp_path, score="minmax").splits["test"].batch
    assert batch.scores.min() >= 0
    assert batch.scores.max() <= 1
    where = np.asarray(batch.request.where)
    ranks = [np.argsort(np.where(where, -scores, 2)) for scores in (batch.scores, raw.scores)]
    np.testing.assert_array_equal(*ranks)


def test_large_scores_close_together_do_not_tie(tmp_path):
    batch = prepare(log(score=pl.col("score") + 1e9), tmp_path).splits["train"].batch
    assert all(len(set(row)) == 4 for row in batch.scores)


def test_a_rank_serves_as_a_score(tmp_path):
    rank = pl.col("score").rank("ordinal", descending=True).over("request_id")
    by_rank = prepare(log(rank=rank).drop("score"), tmp_path)
    by_score = prepare(log(), tmp_path)
    np.testing.assert_allclose(
        by_rank.splits["test"].batch.scores, by_score.splits["test"].batch.scores, atol=1e-3
    )


def test_without_a_first_stage_scores_are_0_and_it_is_said(tmp_path):
    prepared = prepare(log().drop("score"), tmp_path)
    assert not prepared.splits["train"].batch.scores.any()
    assert any("no score and no rank" in text for text in prepared.report["warnings"])


def test_a_request_of_one_candidate_is_legal(tmp_path):
    frame = log().filter((pl.col("request_id") % 2 == 0) | (pl.col("position") == 2))
    prepared = prepare(frame, tmp_path)
    assert prepared.report["lists_of_one"] == 20
    assert prepared.splits["test"].batch.request.where.sum(axis=1).min() == 1


def test_given_histories_win_and_what_is_not_before_is_dropped(tmp_path):
    now = pl.col("timestamp")
    frame = log(
        history=pl.lit([101, 102, 5]),
        history_time=pl.concat_list(now - 20, now - 10, now),
    )
    prepared = prepare(frame, tmp_path)
    request = prepared.splits["test"].batch.request
    assert request.history_where.sum(axis=1).tolist() == [2] * 4
    assert raw_ids(prepared, "item_id", request.history[0, -2:, 0]) == [101, 102]
    assert prepared.report["history_events_not_before_request"] == 40
    text = log(history=pl.lit("[101, 102]"))
    assert prepare(text, tmp_path).splits["test"].batch.request.history_where.sum() == 8


def test_raw_requests_are_encoded_as_the_table_was(tmp_path):
    frame = log(
        item_id=pl.format("item {}", "item_id"),
        u_age=pl.col("user_id") * 2,
        i_tags=pl.concat_list(pl.col("item_id") % 3, pl.lit(7)),
    )
    prepared = prepare(frame, tmp_path)
    split = prepared.splits["test"]
    request, number = split.batch.request, int(split.request_id[0])
    own = frame.filter(pl.col("request_id") == number)
    by_code = {}
    raw = {
        "user_id": own["user_id"][0],
        "u_age": own["u_age"][0],
        "history": raw_ids(prepared, "item_id", request.history[0][request.history_where[0], 0]),
        "items": own.select("item_id", "i_tags").to_dicts(),
    }
    encoders = load(next((tmp_path / "cache").glob("*/encoders")))
    encoded = encode(encoders, [raw]).request
    for name in ("user", "context", "history", "history_where"):
        np.testing.assert_array_equal(getattr(encoded, name), getattr(request, name)[:1])
    as_array = encode(encoders, [raw | {"history": np.array(raw["history"])}]).request
    np.testing.assert_array_equal(as_array.history, encoded.history)
    by_code = {tuple(row) for row in request.candidates[0].tolist()}
    assert {tuple(row) for row in encoded.candidates[0].tolist()} == by_code
    assert encode(encoders, [{"items": [{"item_id": "no such"}]}]).unknown == {
        "user.user_id": 1,
        "user.u_age": 1,
        "item.item_id": 1,
    }
    for bad in ({"items": []}, {"items": [{"id": 1}]}, {"items": [{"item_id": 1.5}]}, {}):
        with pytest.raises(ValueError, match="request 0"):
            encode(encoders, [bad])


def test_splits_by_hash_do_not_depend_on_rows_and_keep_users_together(tmp_path):
    frame = log(200, users=40)
    by_user = prepare(frame, tmp_path, split_by="user")
    users = [set(by_user.splits[name].batch.request.user[:, 0]) for name in ("train", "test")]
    assert by_user.splits["test"].batch.request.user.max() == 1  # all of them new
    assert users[1] == {1}
    assert 5 < len(by_user.splits["test"].request_id) < 60


def test_validation_is_cut_from_training_where_the_table_has_none(tmp_path):
    split = pl.when(pl.col("request_id") < 30).then(pl.lit("train")).otherwise(pl.lit("test"))
    prepared = prepare(log(split=split), tmp_path)
    assert prepared.splits["valid"].request_id.tolist() == [27, 28, 29]
    assert "validation is the last 10%" in prepared.report["split_by"]


def test_counts_of_the_report_add_up(tmp_path):
    frame = cold_log()
    report = prepare(frame, tmp_path, size=4).report
    splits = report["splits"].values()
    assert sum(split["requests"] for split in splits) == report["requests"] == 60
    assert report["candidates_cut"] == 60
    assert report["lists_cut"] == 60
    assert report["users_new_in_test"] > 0
    kept = sum(split["candidates"] for split in splits)
    assert kept == report["rows"] - report["candidates_cut"]
    assert report["schema"]["columns"]["user_id"] == "user_id (Int64)"


def test_requests_of_text_are_numbered_and_their_ids_kept(tmp_path):
    frame = log(request_id=pl.format("r{}", "request_id"))
    prepared, by_number = prepare(frame, tmp_path), prepare(log(), tmp_path)
    keys = prepared.encoders.vocabularies["request_id"].keys
    for name in SPLITS:
        numbers = prepared.splits[name].request_id
        raw = [f"r{number}" for number in by_number.splits[name].request_id]
        assert [keys[number - 1] for number in numbers] == raw
    assert "request_id" not in prepared.spec.sizes
