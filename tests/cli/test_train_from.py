"""`dnr-jax train --from`: an earlier model goes on with newer logs, and never gets worse by it."""

import json

import jax
import numpy as np
import polars as pl
import pytest
from embedding_reranker import EMBEDDING
from linear_reranker import LINEAR

import dnr_jax
from dnr_jax.data.encoders import KNOWN
from dnr_jax.data.table import simulator
from dnr_jax.data.table.settings import TableSimulation
from dnr_jax.nn.embeddings import row_offsets
from dnr_jax.rerankers import RERANKERS

pytestmark = pytest.mark.usefixtures("quick")
NEW = 10_000  # added to some item ids


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two logs, the second of which begins later and has some new items."""
    folder = tmp_path_factory.mktemp("from")
    frame = simulator.table(TableSimulation(requests=300, users=20, candidates=8))
    item = pl.col("item_id")
    frame.filter(pl.col("request_id") < 200).write_parquet(folder / "old.parquet")
    renamed = frame.with_columns(item_id=pl.when(item % 5 == 0).then(item + NEW).otherwise(item))
    renamed.filter(pl.col("request_id") >= 100).write_parquet(folder / "new.parquet")
    return folder


@pytest.fixture
def train(call, folder, monkeypatch):
    monkeypatch.setitem(RERANKERS, "embedding", EMBEDDING)
    monkeypatch.setitem(RERANKERS, "linear", LINEAR)

    def run(logs, out, *more):
        where = ("--out", out, "--cache", folder / "cache", "--epochs", 1)
        return call("train", folder / f"{logs}.parquet", *where, *more)

    return run


@pytest.fixture
def model(train, folder):
    out = folder / "model"
    if not out.exists():
        knobs = ("--set", "reranker.name=embedding", "--seeds", 1)
        assert train("old", out, "--model", "score", *knobs)[0] == 0
    return out


def requests(folder, model):
    """Requests of users and items that the model knows."""
    frame = pl.read_parquet(folder / "old.parquet").drop("label", "position")
    for name in ("user_id", "item_id"):
        known = model.encoders.vocabularies[name].keys.tolist()
        frame = frame.filter(pl.col(name).is_in(known))
    return frame.filter(pl.col("request_id") >= 150)


def test_new_logs_go_on_with_what_was_learned(train, model, folder, tmp_path):
    out = tmp_path / "next"
    code, said, err = train("new", out, "--from", model)
    assert code == 0, err
    old, new = dnr_jax.load(model), dnr_jax.load(out)
    words = new.encoders.vocabularies["item_id"].keys
    count = len(words) - len(old.encoders.vocabularies["item_id"].keys)
    assert count >= (words >= NEW).sum() > 20
    assert set(old.encoders.vocabularies["item_id"].keys) < set(words)
    assert f"item_id {len(words) - count} and {count} new" in said
    assert "the model is score: validation N@6 0." in said
    assert "the earlier model " in said
    assert "the earlier model (best epoch" not in said  # it was not trained here
    assert new.card["reranker"] == old.card["reranker"]
    assert new.card["experiment"]["start"] == old.card["parameters_sha256"]
    run = tmp_path / "next.run"
    results = {r["row"]: r for r in json.loads((run / "results.json").read_text())["rows"]}
    assert results["earlier"]["best_epoch"] == 0
    # The row of the model as it was, on the grown vocabularies, scores as the model itself does.
    grown = dnr_jax.load(run, row="earlier")
    asked = requests(folder, old)
    np.testing.assert_array_equal(grown.scores(asked), old.scores(asked))
    [table] = [x for p, x in jax.tree_util.tree_leaves_with_path(grown.params) if "table" in str(p)]
    first = row_offsets(grown.encoders.spec)["item_id"] + KNOWN
    fresh = table[first + np.flatnonzero(words >= NEW)]
    assert (np.abs(fresh) > 1e-4).all()
    # From there the next logs go on.
    sharded = ("--set", "devices.shard_tables=true")
    assert train("new", tmp_path / "third", "--from", out, *sharded)[0] == 0
    third = dnr_jax.load(tmp_path / "third.run", row="earlier")
    np.testing.assert_array_equal(third.scores(asked), new.scores(asked))


def test_without_a_better_epoch_the_earlier_model_comes_back(train, model, folder, tmp_path):
    out = tmp_path / "same"
    worse = ("--set", "optim.reranker.learning_rate=3", "--seeds", 1, "--set", "devices.count=1")
    code, said, err = train("old", out, "--from", model, *worse)
    assert code == 0, err
    assert "no epoch was better, so it is the earlier one with rows for new values" in said
    assert "known values keep what they learned: none is new" in said
    assert json.loads((tmp_path / "same.run" / "config.json").read_text())["devices"]["count"] == 1
    old, new = dnr_jax.load(model), dnr_jax.load(out)
    asked = requests(folder, old)
    np.testing.assert_array_equal(old.scores(asked), new.scores(asked))
    assert (out / "parameters.npz").read_bytes() == (model / "parameters.npz").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--k", "3"], "set up, but config.eval.k is 3, was 6: leave this out, or train a new"),
        (["--set", "reranker.name=prm"], "config.reranker.name is 'prm', was 'embedding'"),
        (["--set", "history=3"], "config.data.history is 3, was 20"),
        (["--set", "reranker.widht=3"], "config.reranker: there is no knob 'widht'; did you mean "),
        (["--model", "dnr_b"], "--from trains the row of the given model: leave --rows"),
        (["--columns", "item_id=itm"], "there is no column 'itm'; did you mean 'item_id'"),
    ],
)
def test_a_conflict_is_one_line_and_writes_nothing(train, model, tmp_path, arguments, said):
    code, _, err = train("new", tmp_path / "next", "--from", model, *arguments)
    assert code == 1
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_logs_without_anything_to_train_on_are_refused(train, model, folder, tmp_path):
    newer = pl.read_parquet(folder / "new.parquet")
    early = pl.col("request_id") < newer["request_id"].quantile(0.85)
    nothing = newer.with_columns(weight=pl.when(early).then(0.0).otherwise(1.0))
    nothing.write_parquet(folder / "nothing.parquet")
    code, _, err = train("nothing", tmp_path / "next", "--from", model)
    assert code == 1
    assert "no training request is left that has a positive label of a weight above 0" in err
    assert not (tmp_path / "next").exists()


def test_a_model_that_cannot_grow_is_refused_by_name(train, folder, tmp_path):
    code, _, err = train("new", tmp_path / "next", "--from", tmp_path / "nowhere")
    assert code == 1
    assert "nowhere, which is not a model folder: give one that `dnr-jax train` or" in err
    knobs = ("--set", "reranker.name=linear", "--seeds", 1)
    assert train("old", tmp_path / "linear", "--model", "score", *knobs)[0] == 0
    code, _, err = train("new", tmp_path / "next", "--from", tmp_path / "linear")
    assert code == 1
    assert "linear cannot go on from an earlier model on data with new values: its parameter" in err
    assert not (tmp_path / "next").exists()
