"""A model of interactions has one ranking: in Python, exported, over HTTP and for a table."""

import asyncio
import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from linear_reranker import LINEAR
from served import ask, elsewhere

import dnr_jax
from dnr_jax import console, reports
from dnr_jax.cli.train import train
from dnr_jax.data import direct, requests
from dnr_jax.data.encoders import Vocabulary
from dnr_jax.data.table import coded_candidates
from dnr_jax.json_files import DamagedError
from dnr_jax.rerankers import RERANKERS
from dnr_jax.serving import exporting, online, retrieving, service

USERS, ITEMS, MET = 20, 30, 14
# As many items as in training: all ways out compute batches of one shape, and so the same bits.
REQUESTS = [
    {
        "user": 3,
        "items": ["a1", "a2", "new", "a17", "a30"],
        "scores": [1e6, 1e6 + 4, 1e6 + 9, 1e6 + 5, 1e6 + 2],
        "history": [["a4", False], ["a5", True], "a6", "new", ["a9", True], ["a8", False]],
    },
    {"user": 99, "items": ["a20", "a21"], "scores": [0.5, 0.25], "history": []},
]
LIKED = [raw | {"history": ["a6", "new", "a9"]} for raw in REQUESTS]  # all that a table tells


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A model that `dnr-jax train` made of ratings, whose items are text and have a maker."""
    folder, draw = tmp_path_factory.mktemp("interactions"), np.random.default_rng(0)
    met = np.concatenate([draw.permutation(ITEMS)[:MET] + 1 for _ in range(USERS)])
    ratings = {
        "member": np.repeat(np.arange(USERS), MET),
        "sku": [f"a{item}" for item in met],
        "stars": draw.integers(1, 6, len(met)),
        "at": np.arange(len(met)),
    }
    pl.DataFrame(ratings).write_csv(folder / "ratings.csv")
    makers = {"sku": [f"a{n}" for n in range(2, 31)], "maker": [f"m{n % 4}" for n in range(2, 31)]}
    pl.DataFrame(makers).write_csv(folder / "items.csv")
    knobs = ["reranker.name=linear", "retriever.name=popularity", "history=5", "core=2"]
    knobs += ["item_columns=id=sku,maker=maker"]
    options = ["--columns", "user=member,item=sku,rating=stars,time=at", "--item-file", "items.csv"]
    options += ["--rows", "score", "--size", "8", "--k", "3", "--seeds", "1"]
    options += ["--epochs", "1", "--cache", str(folder / "cache"), "--out", str(folder / "model")]
    options += [part for knob in knobs for part in ("--set", knob)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "log_plainly", lambda: None)  # which would last
        patch.setattr(reports, "write", lambda _: "")  # nobody looks at the plots
        patch.setitem(RERANKERS, "linear", LINEAR)
        data = [str(folder / "ratings.csv"), "--data", "interactions"]
        train.main([*data, *options], standalone_mode=False)
        yield folder / "model"


@pytest.fixture(scope="module")
def expected(packed):
    """What `load` says of `REQUESTS`: arrays of scores, not all of them equal."""
    scores = dnr_jax.load(packed).scores(REQUESTS)
    assert len(set(scores[0].tolist())) > 3
    return scores


def test_the_exported_model_ranks_as_it_does(packed, expected, tmp_path):
    exporting.export(packed, None, tmp_path / "artefact")
    scores, ranked = elsewhere(tmp_path / "artefact", REQUESTS)
    for mine, theirs in zip(expected, scores, strict=True):
        np.testing.assert_array_equal(np.float32(theirs), mine)
    assert ranked == dnr_jax.load(packed).rank(REQUESTS)


def message(raw):
    pairs = zip(raw["items"], raw["scores"], strict=True)
    items = [{"id": item, "score": score, "fields": {"i_no": 1}} for item, score in pairs]
    return {"id": "r", "user": raw["user"], "history": raw["history"], "items": items}


def test_the_service_answers_as_it_does(packed, expected):
    model = dnr_jax.load(packed)
    engine = online.Engine(model, most=2)
    for mine, theirs in zip(engine.begin(REQUESTS)()[0], expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    app = service.make(model, engine, limit=4)
    whole = message(REQUESTS[0])

    async def main():
        faulty = [whole | {"history": [past]} for past in (["a4", 2], ["a4"], 0.5)]
        return [await ask(app, "/rank", body) for body in (whole, *faulty)]

    (status, _, content), *refused = asyncio.run(main())
    assert status == 200
    answer = json.loads(content)["items"]
    assert [one["item"] for one in answer] == model.rank(REQUESTS)[0]
    np.testing.assert_allclose([one["score"] for one in answer], -np.sort(-expected[0]), atol=1e-5)
    for status, _, content in refused:
        [error] = json.loads(content)["detail"]
        assert (status, error["loc"]) == (422, ["body", "history", 0])
        assert error["msg"] == "Input should be an item, or [item, true or false]"
    _, _, metrics = asyncio.run(ask(app, "/metrics"))
    assert b'dnr_unknown_values_total{column="item.item_id"} 1.0' in metrics


def table(asked):
    """Write requests whose events were all liked as a row a candidate."""
    rows = [
        {
            "request_id": number,
            "user_id": raw["user"],
            "history": raw["history"],
            "item_id": item,
            "score": score,
        }
        for number, raw in enumerate(asked)
        for item, score in zip(raw["items"], raw["scores"], strict=True)
    ]
    return pl.DataFrame(rows)


def test_every_way_makes_the_same_arrays(packed):
    model, scorer = dnr_jax.load(packed), dnr_jax.Scorer(packed)
    size, code = model.encoders.size, model.encoders.vocabularies["item_id"].encode
    read = direct.load(packed / "encoders", model.card["score"])
    found = read.arrays(REQUESTS, size)["history"]
    past = code(np.array(["a5", "a6", "new", "a9", "a8"]))
    np.testing.assert_array_equal(found[0], np.stack([past, [3, 3, 3, 3, 2]], 1))
    assert not found[1].any()
    bare = [{name: raw[name] for name in ("user", "items", "history")} for raw in LIKED]
    wanted = vars(requests.encode(model.encoders, bare).request)
    coded = scorer.code(scorer.read(table(LIKED)))
    of_table, _ = coded_candidates.request_arrays(
        coded, np.arange(len(LIKED)), size, model.encoders
    )
    for name, array in read.arrays(LIKED, size).items():
        np.testing.assert_array_equal(array, getattr(of_table, name), name)
        if name != "index":  # which counts the prepared requests
            np.testing.assert_array_equal(array, wanted[name], name)


def test_a_table_is_scored_as_it_does(call, packed, tmp_path):
    frame, model = table(LIKED), dnr_jax.load(packed)
    np.testing.assert_array_equal(model.scores(frame), np.concatenate(model.scores(LIKED)))
    frame.write_parquet(tmp_path / "candidates.parquet")
    given, out = tmp_path / "candidates.parquet", tmp_path / "ranked.parquet"
    options = ["--out", out, "--cache", tmp_path / "cache"]
    code, _, err = call("score", packed, given, *options, "--item-file", given)
    assert code == 1
    assert "trained on interactions: it has the features of its users and items" in err
    code, said, err = call("score", packed, given, *options)
    assert code == 0, err
    assert "unknown item_id (item): 1 of 7" in said
    ranked = pl.read_parquet(out).group_by("request_id", maintain_order=True).agg("item_id")
    assert ranked["item_id"].to_list() == model.rank(LIKED)


def test_the_first_stage_is_not_asked_by_the_event_loop(packed, monkeypatch):
    """It scores a catalogue: a service answers others meanwhile."""
    model, asked = dnr_jax.load(packed), []
    true = type(model.first_stage).scores

    def scores(self, requests):
        asked.append(len(requests))
        return true(self, requests)

    monkeypatch.setattr(type(model.first_stage), "scores", scores)
    engine = online.Engine(model, most=2)
    engine.begin(LIKED[:1])()
    assert not asked  # it has scores
    finish = engine.begin([{**LIKED[0], "scores": None}])
    assert not asked
    finish()
    assert asked == [1]


def test_scores_that_are_not_given_are_the_retriever_s(packed):
    """In Python, in a table and over HTTP alike; a new item has the least of its request."""
    model = dnr_jax.load(packed)
    bare = [{name: raw[name] for name in ("user", "items", "history")} for raw in LIKED]
    raw_scores = model.first_stage.scores(bare)
    assert raw_scores[0][2] == raw_scores[0].min() < raw_scores[0].max()
    expected = model.scores([{**r, "scores": s} for r, s in zip(bare, raw_scores, strict=True)])
    scored = model.scores(bare)
    np.testing.assert_array_equal(np.concatenate(scored), np.concatenate(expected))
    frame = table(LIKED).drop("score")
    np.testing.assert_array_equal(model.scores(frame), np.concatenate(expected))
    app = service.make(model, online.Engine(model, most=2), limit=4)
    asked = message(LIKED[0])
    for item in asked["items"]:
        del item["score"]
    status, _, content = asyncio.run(ask(app, "/rank", asked))
    assert status == 200
    found = {one["item"]: one["score"] for one in json.loads(content)["items"]}
    np.testing.assert_allclose([found[item] for item in LIKED[0]["items"]], expected[0], atol=1e-5)


@pytest.mark.parametrize("size", [0, -1, 2.5, "3", True])
def test_a_size_that_is_no_number_of_items_is_refused(packed, size):
    with pytest.raises(ValueError, match=f"size is {size!r}: give a whole number of items"):
        dnr_jax.load(packed).retrieve([{"user": 3}], size)


@pytest.fixture
def users(tmp_path):
    """A table of three requests, the last of a user without any history."""
    path = tmp_path / "users.parquet"
    past = [["a4", "a5"], [], None]
    pl.DataFrame({"night": [7, 8, 9], "uid": [3, 4, 99], "history": past}).write_parquet(path)
    return path


def test_a_table_of_users_is_given_candidates_and_ranked(call, packed, users, tmp_path):
    candidates, out = tmp_path / "candidates.parquet", tmp_path / "ranked.parquet"
    options = ["--out", candidates, "--size", 5]
    code, _, err = call("retrieve", packed, users, *options)
    assert (code, "has no column request_id" in err) == (1, True), err
    code, said, err = call("retrieve", packed, users, *options, "--columns", "request_id=night")
    assert code == 0, err
    assert "15 candidates; rank them by dnr-jax score" in said
    model, found = dnr_jax.load(packed), pl.read_parquet(candidates)
    asked = [{"user": 3, "history": ["a4", "a5"]}, {"user": 4}, {"user": 99}]
    expected = model.retrieve(asked, size=5)
    lists = found.group_by("request_id", maintain_order=True).agg("item_id", "score", "history")
    assert lists["request_id"].to_list() == [7, 8, 9]
    assert lists["item_id"].to_list() == [raw["items"] for raw in expected]
    np.testing.assert_allclose(lists["score"].to_list(), [raw["scores"] for raw in expected])
    assert lists["history"][0].to_list() == [["a4", "a5"], None, None, None, None]
    assert not {"a4", "a5"} & set(lists["item_id"][0])
    code, _, err = call("score", packed, candidates, "--out", out, "--cache", tmp_path / "cache")
    assert code == 0, err
    ranked = pl.read_parquet(out).group_by("request_id", maintain_order=True).agg("item_id")
    assert ranked["item_id"].to_list() == model.rank(expected)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([1, 1], "several rows of request 1"),
        ([1, None], "a row without request_id"),
        ([], "no rows"),
    ],
)
def test_requests_that_cannot_be_told_apart_are_refused(call, packed, tmp_path, ids, said):
    given, out = tmp_path / "users.parquet", tmp_path / "out.parquet"
    pl.DataFrame({"request_id": pl.Series(ids, dtype=pl.Int64)}).write_parquet(given)
    code, _, err = call("retrieve", packed, given, "--out", out)
    assert (code, said in err, err.count("\n"), out.exists()) == (1, True, 1, False), err


def nothing_made(call, packed, given, *options):
    """Check that `retrieve` makes no file; return its one line of error."""
    out = given.with_name("out.parquet")
    code, _, err = call("retrieve", packed, given, "--out", out, *options)
    assert (code, out.exists()) == (1, False), err
    *_, line = err.splitlines()  # after the progress bar
    return line


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ({"user_id": ["u1", "4"]}, "column user_id holds 'u1', but this model's users are integ"),
        ({"user_id": [3.0, 1.5]}, "column user_id holds 1.5, but this model's users are integers"),
        ({"user_id": [float("nan"), 3]}, "column user_id holds nan, but this model's users are i"),
        ({"request_id": [1.5, 2]}, "column request_id holds 1.5, but ids are integers or text"),
    ],
)
def test_ids_of_another_type_are_refused(call, packed, tmp_path, column, said):
    given = tmp_path / "users.parquet"
    pl.DataFrame({"request_id": [1, 2], **column}, strict=False).write_parquet(given)
    err = nothing_made(call, packed, given)
    assert f"{given}: {said}" in err
    assert "(1 such value): " in err


def test_ids_of_a_csv_file_are_refused_too(call, packed, tmp_path):
    given = tmp_path / "users.csv"
    given.write_text("request_id,uid\n1,3\n2,x\n3,\n4,y\n")
    err = nothing_made(call, packed, given)
    assert "column uid holds 'x', but this model's users are integers (2 such values): w" in err


def test_history_items_of_another_type_are_refused():
    words = Vocabulary(np.array([4, 5]))
    frame = pl.DataFrame({"request_id": [1, 2, 3], "past": ["4,x", None, "5 y"]})
    encoders = SimpleNamespace(vocabularies={"user_id": words, "item_id": words})
    with pytest.raises(ValueError, match=r"column past holds 'x', but this model's items are int"):
        retrieving._read(frame, "history=past", encoders)
    _, read = retrieving._read(frame.with_columns(past=pl.Series([[4], [], None])), "", encoders)
    assert read["history"].to_list() == [None, None, None]  # `past` is no customary name


def test_unknown_ids_and_columns_that_are_not_read_are_said(call, packed, tmp_path):
    given, out = tmp_path / "users.parquet", tmp_path / "out.parquet"
    past = pl.Series([["a4", "new", None], []])
    frame = pl.DataFrame({"request_id": [1, 2], "user_id": [3, 99], "histroy": past, "night": 7})
    frame.write_parquet(given)
    code, said, err = call("retrieve", packed, given, "--out", out)
    assert code == 0, err
    assert said.splitlines()[1:] == [
        "not in the table, taken as unknown: history",
        "columns that are not read: histroy (did you mean history?), night",
        "unknown user_id (user): 1 of 2",
    ]
    options = ["--out", out, "--overwrite", "--columns", "history=histroy"]
    frame.drop("night").write_parquet(given)
    code, said, err = call("retrieve", packed, given, *options)
    assert code == 0, err
    assert said.splitlines()[1:] == [
        "unknown user_id (user): 1 of 2",
        "unknown item_id (history): 2 of 3",
    ]
    found = pl.read_parquet(out)
    assert found["user_id"].unique().sort().to_list() == [3, 99]
    assert found["history"].drop_nulls().to_list() == [["a4", "new", None], []]


def test_requests_without_candidates_are_said(call, packed, tmp_path):
    given, out = tmp_path / "users.parquet", tmp_path / "out.parquet"
    everything = [f"a{item}" for item in range(1, ITEMS + 1)]
    ids = {"request_id": [1, 2], "user_id": [3, 4]}
    pl.DataFrame({**ids, "history": [everything, ["a4"]]}).write_parquet(given)
    code, said, err = call("retrieve", packed, given, "--out", out)
    assert code == 0, err
    assert said.splitlines()[1:] == ["1 of 2 requests has no candidate left: 1"]
    assert pl.read_parquet(out)["request_id"].unique().to_list() == [2]
    out.unlink()
    pl.DataFrame({**ids, "history": [everything, everything]}).write_parquet(given)
    assert "no request has a candidate left" in nothing_made(call, packed, given)
    assert [one.name for one in tmp_path.iterdir()] == [given.name]


def test_a_model_without_retriever_is_refused_before_the_table_is_read(call, packed, tmp_path):
    copy = shutil.copytree(packed, tmp_path / "model")
    model = dataclasses.replace(dnr_jax.load(copy), first_stage=None)
    said = "trained on interactions and keeps no retriever: .* rank them by dnr-jax score"
    with pytest.raises(ValueError, match=said):
        retrieving.retrieve_file(model, tmp_path / "absent.csv", tmp_path / "out.parquet")


def test_the_input_is_not_replaced(call, packed, users):
    before, named = users.read_bytes(), ["--columns", "request_id=night"]
    (users.parent / "link.parquet").symlink_to(users)
    for command in ("retrieve", "score"):
        for out in (users, users.parent / "link.parquet"):
            for more in ([], ["--overwrite"]):
                code, _, err = call(command, packed, users, "--out", out, *named, *more)
                assert (code, err.count("\n")) == (1, 1), err
                assert f"{out} is the same file as the input {users}" in err
    assert users.read_bytes() == before


def test_a_retriever_that_was_changed_is_noticed(packed, tmp_path):
    copy = shutil.copytree(packed, tmp_path / "model")
    [file] = (copy / "retriever").glob("*.bin")
    file.write_bytes(b"\0" * file.stat().st_size)
    model = dnr_jax.load(copy)
    model.scores(REQUESTS)  # which has scores of its own
    with pytest.raises(DamagedError, match="restore the folder from a copy"):
        model.retrieve([{"user": 3}])
    (copy / "retriever" / "retriever.json").write_text("{}")
    with pytest.raises(DamagedError, match=r"retriever\.json"):
        dnr_jax.load(copy)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "without candidates: dnr-jax train LOGS --data interactions"),
        (["--data", "interaction"], "did you mean 'interactions'?"),
        (["--data", "recflow"], "there is no kind of data 'recflow'"),
        (["--data", "interactions", "--from", "model"], "--from only continues models trained"),
    ],
)
def test_the_command_says_how_ratings_are_trained_on(call, tmp_path, options, said):
    path = tmp_path / "ratings.csv"
    path.write_text("user_id,item_id,rating,timestamp\n1,2,5,7\n1,3,4,8\n")
    code, _, err = call("train", path, "--out", tmp_path / "model", *options)
    assert (code, said in err, err.count("\n")) == (1, True, 1), err
    assert [one.name for one in tmp_path.iterdir()] == ["ratings.csv"]
