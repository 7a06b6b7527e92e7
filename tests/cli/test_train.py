"""`dnr-jax train`: a log table in, a model folder and result table out; resumed after a kill."""

import json

import numpy as np
import polars as pl
import pytest
from linear_reranker import LINEAR

import dnr_jax
from dnr_jax import experiment
from dnr_jax.data.table import simulator
from dnr_jax.data.table.settings import TableSimulation
from dnr_jax.experiment import own_logs
from dnr_jax.experiment.own_logs import Counts
from dnr_jax.rerankers import RERANKERS

pytestmark = pytest.mark.usefixtures("quick")
TINY = ("--set", "reranker.name=linear", "--seeds", "1")


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    path = tmp_path_factory.mktemp("logs") / "log.parquet"
    simulator.table(TableSimulation(requests=200, users=20, candidates=8)).write_parquet(path)
    return path


@pytest.fixture
def train(call, logs, monkeypatch):
    """Train a tiny model into a folder; more arguments win."""
    monkeypatch.setitem(RERANKERS, "linear", LINEAR)
    cache = logs.parent / "cache"

    def run(out, *more, table=logs):
        return call("train", table, "--out", out, "--cache", cache, "--epochs", 1, *TINY, *more)

    return run


def test_a_table_becomes_a_model_and_a_killed_training_goes_on(train, logs, tmp_path, monkeypatch):
    out, rows, true = tmp_path / "model", "retriever,score", experiment.scoring.score_row
    calls = []

    def dying(job, progress):
        calls.append(job.row.key)
        if len(calls) == 4:
            raise KeyboardInterrupt
        true(job, progress)

    monkeypatch.setattr(experiment.scoring, "score_row", dying)
    code, _, err = train(out, "--rows", rows)
    assert (code, "start the same command again to go on" in err) == (130, True)
    assert not out.exists()
    code, said, err = train(out, "--rows", rows)
    assert code == 0, err
    assert calls == ["random", "popularity", "retriever", "score", "score"]
    assert "145 training requests: at most 1 epochs in batches of 16 requests" in said
    assert "data: test: models are compared on 20 requests with a positive" in said
    assert "the model is score, the best trained row on validation: N@6 0." in said
    assert dnr_jax.load(out).card["row"] == "score"
    ranked = dnr_jax.Scorer(out)(pl.read_parquet(logs).drop("label", "position").to_arrow())
    assert len(ranked) == len(pl.read_parquet(logs))
    code, _, err = train(out, "--rows", rows)
    assert code == 1
    assert err == f"error: {out} exists already: choose another name, or --overwrite\n"
    code, said, err = train(out, "--model", "score", "--overwrite")
    assert code == 0, err
    assert len(calls) == 5  # every row is there already
    assert {path.name for path in tmp_path.iterdir()} == {"model", "model.run"}


def test_rows_that_read_scores_are_left_out_where_there_are_none(train, logs, tmp_path):
    path = tmp_path / "bare.csv"
    pl.read_parquet(logs).drop("score", "i_tags").write_csv(path)
    out = tmp_path / "model"
    rows = "random,popularity,retriever,plain,score,dnr_b"
    # Tables in equal parts have rows for ids that never occur, which popularity does not know.
    sharded = ("--set", "devices.shard_tables=true")
    code, said, err = train(out, "--rows", rows, *sharded, table=path)
    assert code == 0, err
    assert "left out, as there are no scores of a first stage: retriever, score, dnr_b" in said
    assert dnr_jax.load(out).card["row"] == "plain"
    code, _, err = train(tmp_path / "other", "--model", "dnr_b", table=path)
    assert code == 1
    assert "--model=dnr_b reads the scores of a first stage, and the table has none" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "dnr_bb"], "config.table: there is no row 'dnr_bb'; did you mean 'dnr_b'?"),
        (["--model", "retriever"], "--model=retriever learns nothing: choose a row that is"),
        (
            ["--rows", "random,retriever"],
            "none of the rows random, popularity, retriever can be trained",
        ),
        (["--set", "reranker.widht=8"], "config.reranker: there is no knob 'widht'; did you mean"),
        (
            ["--set", "width=3"],
            "config.data: there is no knob 'width'; did you mean config.reranker.w",
        ),
        (["--set", "train.epochs=many"], "config.train.epochs is 'many': it must be of type int"),
        (["--set", "split_by"], "--set is 'split_by': write KNOB=VALUE"),
        (["--columns", "item_id=itm"], "there is no column 'itm'; did you mean 'item_id'"),
    ],
)
def test_a_wrong_option_is_one_line_and_writes_nothing(train, tmp_path, arguments, said):
    code, _, err = train(tmp_path / "model", *arguments)
    assert code == 1
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_table_without_a_training_request_is_one_line(train, logs, tmp_path):
    path = tmp_path / "weights.parquet"
    pl.read_parquet(logs).with_columns(weight=pl.lit(0.0)).write_parquet(path)
    code, _, err = train(tmp_path / "model", table=path)
    assert code == 1
    assert "no training request is left that has a positive label of a weight above 0" in err
    assert {one.name for one in tmp_path.iterdir()} == {"weights.parquet"}


@pytest.mark.parametrize(
    ("requests", "width", "batch", "epochs"),
    [
        (9, 16, 9, 20),
        (300, 16, 16, 20),
        (5_000, 32, 64, 20),
        (60_000, 32, 1024, 20),
        (10**7, 64, 1024, 4),
    ],
)
def test_sizes_follow_the_number_of_training_requests(requests, width, batch, epochs):
    rules = own_logs.rules(Counts(requests, histories=True, scores=True))
    train = rules["train"]
    assert (rules["reranker"]["width"], train["batch_size"], train["epochs"]) == (
        width,
        batch,
        epochs,
    )
    assert train["lambda_e"] == epochs // 2
    assert train["seeds"] == (5 if requests < 10_000 else 3)
    assert rules["reranker"]["width"] % rules["reranker"]["heads"] == 0


def test_rules_follow_what_the_user_says():
    counts = Counts(5_000, histories=False, scores=True)
    train = own_logs.rules(counts, {"epochs": 3, "batch_size": 500})["train"]
    assert train == {"batch_size": 500, "epochs": 3, "lambda_e": 1, "patience": 3, "seeds": 5}
    assert own_logs.rows(counts)[-1] == "setrank_score"
    assert own_logs.rows(Counts(5_000, histories=True, scores=False))[-1] == "sasrec"


def test_the_best_trained_row_on_validation_is_chosen(tmp_path):
    def record(row, value, split="valid", trivial=False):
        return {"row": row, "split": split, "trivial": trivial, "metrics": {"n@3": value}}

    rows = [
        *(record("retriever", v, trivial=True) for v in (0.6, np.nan)),
        *(record("plain", v) for v in (0.5, 0.1)),
        *(record("score", v) for v in (0.3, 0.4)),
        record("plain", 0.9, split="test"),
    ]
    rows[1]["metrics"]["n@3"] = None
    (tmp_path / "results.json").write_text(json.dumps({"rows": rows}))
    choice = own_logs.choose(tmp_path)
    assert choice.row == "score"
    assert choice.words[0].endswith("N@3 0.3500, next plain 0.3000")
    assert len(choice.words) == 1
    rows[1]["metrics"]["n@3"] = 0.7
    (tmp_path / "results.json").write_text(json.dumps({"rows": rows}))
    assert own_logs.choose(tmp_path).words[1].startswith("WARN  retriever, which learns nothing")
