"""From a user's own table to a model that ranks raw requests of the same form as its run did."""

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

import dnr_jax
from configs import table as config_file
from dnr_jax.data.table import simulator
from dnr_jax.data.table.settings import TableSimulation
from dnr_jax.experiment import datasets, make_plan, run_all

K = 6


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a model on a table with scores of a scale of their own; return table, data, model."""
    folder = tmp_path_factory.mktemp("own")
    frame = simulator.table(TableSimulation(requests=300, users=30, candidates=8))
    frame = frame.with_columns(pl.col("score") * 40 + 1e6).rename({"request_id": "session"})
    frame.write_parquet(folder / "log.parquet")
    config = config_file.get_config("smoke")
    config.table = "random,score"
    config.cache = str(folder / "cache")
    config.data.path = str(folder / "log.parquet")
    config.data.columns = "request_id=session"
    config.train.epochs = 1
    [run] = run_all(config.to_dict(), folder / "run")
    prepared = datasets.prepare(make_plan(config.to_dict())[0].data)
    return frame, prepared, run, dnr_jax.load(run, row="score")


def raw_request(frame, prepared, number):
    """Write a request of the table as its user would."""
    own = frame.filter(pl.col("session") == number)
    first, time = own.row(0, named=True), own["timestamp"][0]
    before = frame.filter(
        (pl.col("user_id") == first["user_id"])
        & (pl.col("timestamp") < time)
        & (pl.col("label") > 0.5)
    )
    return {
        "user_id": first["user_id"],
        "u_city": first["u_city"],
        "c_weekday": first["c_weekday"],
        "history": before.sort("timestamp", "item_id")["item_id"].to_list(),
        "scores": own["score"].to_list(),
        "items": own.select("item_id", "i_brand", "i_tags", "i_price").to_dicts(),
    }, own


def test_a_loaded_model_ranks_raw_requests_of_a_table_as_its_run_did(trained):
    frame, prepared, run, model = trained
    split = prepared.splits["test"]
    raw = [raw_request(frame, prepared, number) for number in split.request_id.tolist()]
    found = model.scores([request for request, _ in raw])
    size = max(len(scores) for scores in found)
    logits, labels = np.full((2, len(raw), size), -1e9, np.float32)
    judged = np.zeros(labels.shape, bool)
    for row, (scores, (_, own)) in enumerate(zip(found, raw, strict=True)):
        logits[row, : len(scores)] = scores
        labels[row, : len(scores)] = own["label"].fill_null(0).to_numpy()
        judged[row, : len(scores)] = own["label"].is_not_null().to_numpy()
    ndcg, valid = dnr_jax.evaluate_batch(logits, labels, judged, k=K)[f"n@{K}"]
    table = pq.read_table(run / "per_request.parquet")
    mine = [name.endswith("+score") for name in table["model"].to_pylist()]
    np.testing.assert_allclose(
        np.where(valid, ndcg, np.nan), table[f"n@{K}"].to_numpy()[np.array(mine)], atol=1e-6
    )


def test_unknown_ids_and_missing_values_are_ranked_all_the_same(trained):
    frame, prepared, _, model = trained
    request, _ = raw_request(frame, prepared, int(prepared.splits["test"].request_id[0]))
    bare = {"items": [{"item_id": -7}, {"item_id": 3}], "scores": [0.0, 1e9]}
    assert len(model.rank([request, bare])[1]) == 2
