"""The requests of a run's test split under its models, read back and ranked side by side."""

import json
import re

import numpy as np
import polars as pl
import pytest

import dnr_jax
from dnr_jax.experiment import datasets

K = 6


@pytest.fixture(scope="module")
def data(run):
    return dnr_jax.run_data(run, cache=run.parent / "cache")


@pytest.fixture(scope="module")
def ranked(run, data):
    return dnr_jax.rank_split(data, {"score": dnr_jax.load(run, "score")})


def ndcg(labels, ranks):
    """N@K of one list: gain = label, discount 1 / log2(1 + rank)."""
    gain = sum(z / np.log2(1 + r) for z, r in zip(labels, ranks, strict=True) if r <= K)
    best = sum(z / np.log2(1 + r) for r, z in enumerate(sorted(labels, reverse=True), 1) if r <= K)
    return gain / best if best > 0 else np.nan


@pytest.mark.parametrize(("name", "model"), [("score", "prm+score"), ("retriever", "retriever")])
def test_ranks_give_the_metric_that_the_run_has_written(run, ranked, name, model):
    written = pl.read_parquet(run / "per_request.parquet").filter(pl.col("model") == model)
    known = dict(zip(written["request_id"], written[f"n@{K}"], strict=True))
    judged = ranked.filter(pl.col("label").is_not_null())
    place = pl.col(f"{name}_rank").rank().over("request_id")  # unjudged items do not count
    own = {
        number: ndcg(*lists)
        for number, *lists in judged.with_columns(place=place)
        .group_by("request_id")
        .agg("label", "place")
        .iter_rows()
    }
    assert len(known) == ranked["request_id"].n_unique()
    for number, value in known.items():
        np.testing.assert_allclose(own.get(number, np.nan), value, atol=1e-6)


def test_candidates_are_those_of_the_table(ranked, logs):
    assert ranked["item_id"].null_count() < 5  # training has not met them
    own = ranked.filter(pl.col("item_id").is_not_null())
    place = pl.col("score").rank(descending=True).over("request_id").cast(pl.Int32)
    given = logs.select("request_id", "item_id", "label", place.alias("place"))
    joined = own.join(given, on=["request_id", "item_id"], how="left")
    assert joined["place"].null_count() == 0
    assert joined["retriever_rank"].to_list() == joined["place"].to_list()
    assert joined["label"].to_list() == joined["label_right"].to_list()
    assert ranked["truth"].null_count() == len(ranked)  # nobody knows it of a log


def test_some_requests_are_ranked_alike(run, data, ranked):
    some = ranked["request_id"].unique().to_list()[3:5]
    found = dnr_jax.rank_split(data, {"score": dnr_jax.load(run, "score")}, requests=some)
    whole = ranked.filter(pl.col("request_id").is_in(some))
    assert found["score_rank"].to_list() == whole["score_rank"].to_list()
    np.testing.assert_allclose(found["score_score"], whole["score_score"], rtol=1e-5)


def test_a_model_of_logs_has_no_retriever(run):
    model = dnr_jax.load(run, "score")
    with pytest.raises(ValueError, match="this model was saved without a retriever"):
        model.retrieve([{"user_id": 1}])
    with pytest.raises(ValueError, match="request 0 has no 'scores', which this model reads"):
        model.rank([{"items": [{"item_id": 1}, {"item_id": 2}]}])


@pytest.mark.parametrize(
    ("faulty", "said"),
    [
        (None, "request 1 is a NoneType: it must be a mapping"),
        ("abc", "request 1 is a str: it must be a mapping"),
        ({"scores": []}, "request 1 has no 'items'"),
        ({"items": 3, "scores": [1]}, "request 1: items is 3: it must be a list"),
        ({"items": None}, "request 1: items is None: it must be a list"),
        (["1", "2"], "request 1: scores are ['1', '2']: give 2 finite numbers, one per item"),
        ("12", "request 1: scores are '12': give 2 finite numbers, one per item"),
        ([1, [2]], "request 1: scores are [1, [2]]: give 2 finite numbers, one per item"),
        ([1, 10**400], "give 2 finite numbers, one per item, none above 1e+38"),
        ({"a": 1}, "request 1: scores are {'a': 1}: give 2 finite numbers, one per item"),
    ],
)
def test_a_faulty_request_is_one_error_with_its_number(run, faulty, said):
    good = {"items": [{"item_id": 1}, {"item_id": 2}], "scores": [1, 2]}
    of_scores = "scores are" in said or "1e+38" in said
    given = good | {"scores": faulty} if of_scores else faulty
    with pytest.raises(ValueError, match=re.escape(said)):
        dnr_jax.load(run, "score").scores([good, given])


def test_data_that_are_not_the_run_s_are_refused_before_any_work(run, data, tmp_path, monkeypatch):
    other = data._replace(fingerprint="0123")
    with pytest.raises(ValueError, match=r"model score was trained on data \w+, these are 0123"):
        dnr_jax.rank_split(other, {"score": dnr_jax.load(run, "score")})
    for name in ("config.json", "audit.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    audit = json.loads((tmp_path / "audit.json").read_text())
    (tmp_path / "audit.json").write_text(json.dumps(audit | {"fingerprint": "4567"}))
    monkeypatch.setattr(datasets, "prepare", None)  # work would fail
    with pytest.raises(ValueError, match="was made with data 4567, now they are"):
        dnr_jax.run_data(tmp_path, cache=run.parent / "cache")


def test_data_that_are_not_in_the_cache_are_made_again_and_it_is_said(run, data, tmp_path, caplog):
    again = dnr_jax.run_data(run, cache=tmp_path)
    assert f"data {data.fingerprint} is not in the cache {tmp_path}" in caplog.text
    assert again.fingerprint == data.fingerprint
    caplog.clear()
    dnr_jax.run_data(run, cache=tmp_path)
    assert "not in the cache" not in caplog.text
