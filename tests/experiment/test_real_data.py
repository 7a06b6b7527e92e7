"""Real logs and ratings go the whole way from file to table; skipped where they are not on disk."""

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tiny_runs import merged

from configs import movielens
from configs import table as config_file
from dnr_jax import experiment
from dnr_jax.data.table import importers

REAL = Path(os.environ.get("DNR_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
K = 6
TINY = {
    "reranker": {"name": "linear", "width": 8, "heads": 1, "feed_forward": 8},
    "train": {"epochs": 1, "lambda_e": 1, "batch_size": 32, "seeds": 1},
}


def real(name):
    if not (REAL / name).exists():
        pytest.skip(f"real data {name} is not in {REAL} (set DNR_TEST_DATA)")
    return REAL / name


def run(config, folder, **changes):
    """Run a tiny table; return its folder, and its data as the run saw them."""
    config = merged(merged(config.to_dict(), TINY), {"cache": str(folder / "cache"), **changes})
    [made] = experiment.run_all(config, folder / "run")
    return made, experiment.run_data(made, config["cache"])


def run_log(frame, folder, rows, **data):
    frame.write_parquet(folder / "log.parquet")
    data = {"path": str(folder / "log.parquet"), **data}
    return run(config_file.get_config("smoke"), folder, table=rows, data=data)


def per_request(folder, model):
    written = pl.read_parquet(folder / "per_request.parquet").filter(pl.col("model") == model)
    return written[f"n@{K}"].fill_nan(None)


def yoochoose(retriever):
    """Make a log of published lists: a request is a click, and the label the next click."""
    folder = real("yoochoose-100k")
    clicks = pl.read_csv(folder / "prepared" / "yoochoose-clicks-100k_test.txt", separator="\t")
    clicks = clicks.sort("SessionId", "Time", maintain_order=True).with_columns(
        Position=pl.int_range(pl.len()).over("SessionId"),
        target=pl.col("ItemId").shift(-1).over("SessionId"),
    )
    path = folder / "recommendations" / f"recoms_rsc15_100k_{retriever}.csv"
    lists = pl.read_csv(path, separator=";", infer_schema=False).with_columns(
        pl.col("SessionId", "Position").cast(pl.Int64),
        item_id=pl.col("Recommendations").str.split(",").cast(pl.List(pl.Int64)),
        score=pl.col("Scores").str.split(",").cast(pl.List(pl.Float64)),
    )
    joined = lists.join(clicks, on=["SessionId", "Position"]).with_row_index("request_id")
    fifth = pl.col("SessionId").rank("dense") * 5 / (1 + pl.col("SessionId").n_unique())
    part = pl.when(fifth < 3).then(pl.lit("train"))
    part = part.when(fifth < 4).then(pl.lit("valid")).otherwise(pl.lit("test"))
    exploded = joined.with_columns(split=part).explode("item_id", "score")
    return exploded.select(
        *("request_id", "item_id", "score", "split"),
        user_id="SessionId",
        timestamp=pl.col("Time").cast(pl.Int64),
        label=(pl.col("item_id") == pl.col("target")).cast(pl.Float64),
    )


def one_positive(scores, labels):
    """N@K of a list with one positive, expected over orders of equal scores; None without one."""
    if not any(labels):
        return None
    scores, own = np.array(scores), scores[labels.index(1)]
    places = np.arange((scores > own).sum(), (scores >= own).sum())  # from 0
    return float(np.mean(np.where(places < K, 1 / np.log2(2 + places), 0)))


@pytest.mark.parametrize("retriever", ["vsknn", "gru4rec", "sr", "ar"])
def test_published_first_stages_of_yoochoose_keep_their_quality(retriever, tmp_path):
    log = yoochoose(retriever)
    rows = "retriever,score" if retriever == "vsknn" else "retriever"
    folder, data = run_log(log, tmp_path, rows)
    found = dict(
        zip(
            data.splits["test"].request_id.tolist(),
            per_request(folder, "retriever"),
            strict=True,
        )
    )
    lists = log.filter(pl.col("split") == "test").group_by("request_id").agg("score", "label")
    assert len(found) == len(lists) > 50
    for number, scores, labels in lists.iter_rows():
        assert found[number] == (pytest.approx(one_positive(scores, labels), abs=1e-6))
    results = json.loads((folder / "results.json").read_text())["rows"]
    assert [row["metrics"][f"n@{K}"] > 0.2 for row in results if row["row"] == "retriever"]


def test_impressions_of_ebnerd_train_a_model_without_scores(tmp_path):
    frame = importers.read_ebnerd(real("ebnerd-sample"))
    folder, data = run_log(frame, tmp_path, "random,plain", history=10)
    shown = pl.read_parquet(REAL / "ebnerd-sample" / "behaviors.parquet")
    kept = {number for split in data.splits.values() for number in split.request_id.tolist()}
    assert kept <= set(shown["impression_id"].to_list())
    assert len(kept) > 900
    test = data.splits["test"]
    own = shown.filter(pl.col("impression_id").is_in(test.request_id.tolist()))
    longest = test.batch.request.where.shape[1]
    short = own.filter(pl.col("article_ids_inview").list.len() <= longest)
    where = dict(zip(test.request_id.tolist(), test.batch.request.where.sum(1), strict=True))
    for number, articles in short.select("impression_id", "article_ids_inview").iter_rows():
        assert where[number] == len(set(articles))
    assert not np.any(test.batch.scores)
    learned = per_request(folder, "linear")
    assert learned.is_not_null().sum() > 50


def test_movielens_with_features_of_users_and_films(tmp_path):
    given, ratings = real("ml-1m-features"), tmp_path / "ratings"
    ratings.mkdir()
    for own, name in (("users", "users"), ("items", "movies")):  # tabs stand for the original "::"
        text = (given / f"ml1m_{own}.dat").read_text("latin-1").replace("\t", "::")
        (ratings / f"{name}.dat").write_text(text, "latin-1")
    lines = (given / "sample_movielens_rating.dat").read_text().splitlines(keepends=True)
    some = [line for line in lines if int(line.split("::")[0]) <= 600]
    (ratings / "ratings.dat").write_text("".join(some))
    folder, data = run(
        movielens.get_config("smoke"),
        tmp_path,
        table="retriever,score",
        data={"path": str(ratings), "core": 5, "history": 10},
        candidates={"name": "exposed_plus_sampled", "size": 12},
        retriever={"name": "popularity"},
    )
    words = data.encoders.vocabularies
    assert set(words["gender"].keys) == {"F", "M"}
    assert len(words["occupation"].keys) > 15  # of 21, in some of the ratings
    assert {"Comedy", "Drama", "Film-Noir"} <= set(words["genre"].keys)
    film = dict(zip(words["item_id"].keys.tolist(), range(2, 10**6), strict=False))
    [column] = [n for n, name in enumerate(data.spec.item) if name == "genre"]
    test = data.splits["test"].batch.request
    toy_story = test.candidates[(test.candidates[..., 0] == film[1]) & test.where]
    assert {words["genre"].keys[code - 2] for code in toy_story[:, column]} == {"Animation"}
    assert per_request(folder, "linear+score").is_not_null().sum() > 20
