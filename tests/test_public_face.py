"""README's Python quickstart runs, and a loaded model scores raw requests as its run did."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

import dnr_jax
from dnr_jax.data.direct import POSITIVE
from dnr_jax.experiment import datasets, make_plan

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """Run README's block in an empty folder, with an empty home; return its variables."""
    found = re.search(r"<!-- quickstart -->\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found, "README.md has no block under <!-- quickstart -->"
    home, names = tmp_path_factory.mktemp("home"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("HOME", str(home))
        exec(found[1], names)
        names["prepared"] = datasets.prepare(make_plan(names["config"])[0].data)
        names["folder"] = names["folder"].absolute()
    return names


def test_the_quickstart_prints_a_table_and_ranks_a_request(quickstart, capsys):
    [order] = quickstart["model"].rank([quickstart["request"]])
    assert sorted(order) == sorted(quickstart["request"]["items"])
    assert (quickstart["folder"] / "results.md").exists()


def raw_requests(prepared, rows):
    """Write requests of the test split as a user would."""
    batch, words = prepared.splits["test"].batch, prepared.encoders.vocabularies
    users, items = words["user_id"].keys, words["item_id"].keys
    for row in rows:
        where, past = batch.request.where[row], batch.request.history_where[row]
        yield {
            "user": int(users[batch.request.user[row, 0] - 2]),
            "items": items[batch.request.candidates[row, where, 0] - 2].tolist(),
            "scores": batch.scores[row, where].tolist(),
            "history": [
                [int(items[item - 2]), bool(liked == POSITIVE)]
                for item, liked in batch.request.history[row, past]
            ],
        }


@pytest.mark.parametrize("count", [1, 7, 64])
def test_a_loaded_model_ranks_raw_requests_as_its_run_did(quickstart, count):
    prepared, batch = quickstart["prepared"], quickstart["prepared"].splits["test"].batch
    found = quickstart["model"].scores(list(raw_requests(prepared, range(count))))
    logits = np.full(batch.scores[:count].shape, -1e9, np.float32)
    for row, scores in enumerate(found):
        logits[row, batch.request.where[row]] = scores
    judged = batch.weights[:count] > 0
    ndcg, valid = dnr_jax.evaluate_batch(logits, batch.labels[:count], judged, k=6)["n@6"]
    table = pq.read_table(quickstart["folder"] / "per_request.parquet")
    mine = [name.endswith("dnr-b") for name in table["model"].to_pylist()]
    expected = table["n@6"].to_numpy()[np.array(mine)][:count]
    np.testing.assert_allclose(np.where(valid, ndcg, np.nan), expected, atol=1e-6)


def test_the_retriever_of_a_run_gives_the_scores_that_it_trained_on(quickstart):
    model, batch = quickstart["model"], quickstart["prepared"].splits["test"].batch
    raw = list(raw_requests(quickstart["prepared"], range(9)))
    for row, found in enumerate(model.first_stage.scores(raw)):
        x = (found - found.min()) / (found.max() - found.min())  # as config.retriever.score says
        np.testing.assert_allclose(x, batch.scores[row, batch.request.where[row]], atol=1e-5)
    bare = [{name: one[name] for name in ("user", "items", "history")} for one in raw]
    for mine, theirs in zip(model.scores(bare), model.scores(raw), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_the_retriever_of_a_run_finds_what_to_rank(quickstart):
    model, asked = quickstart["model"], {"user": 5, "history": [[11, True], [12, False]]}
    whole = quickstart["prepared"].encoders.vocabularies["item_id"].keys.tolist()
    [every] = model.first_stage.scores([{**asked, "items": whole}])
    best = [whole[place] for place in np.argsort(-every, kind="stable")]
    [found], [few] = model.retrieve([asked]), model.retrieve([asked], size=3)
    assert found["items"] == [item for item in best if item not in (11, 12)][:50]
    assert found["scores"] == sorted(found["scores"], reverse=True)
    assert (few["items"], few["scores"]) == (found["items"][:3], found["scores"][:3])
    assert sorted(model.rank([found])[0]) == sorted(found["items"])
    with pytest.raises(ValueError, match="request 0 has items or scores"):
        model.retrieve([found])
    with pytest.raises(ValueError, match="request 1: there is no field 'usr'"):
        model.retrieve([asked, {"usr": 5}])
    with pytest.raises(ValueError, match="request 0 is a list: it must be a mapping"):
        model.retrieve([[5]])
    with pytest.raises(ValueError, match=r"of type dict, expected a list of .*\[request\]"):
        model.retrieve(asked)
    with pytest.raises(ValueError, match="of type generator, expected a list of requests"):
        model.retrieve(one for one in [asked])
    with pytest.raises(ValueError, match=r"of type LazyFrame, .*; collect a lazy one first"):
        model.rank(pl.LazyFrame({"item_id": [1]}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [1.0]}, r"request 0: scores are \[1.0\]: give 4 finite numbers"),
        ({"scores": [1.0, 2.0, 3.0, float("nan")]}, "give 4 finite numbers, one per item"),
        ({"itms": [1]}, "there is no field 'itms'; did you mean 'items'"),
        ({"items": []}, "request 0 has 0 items"),
    ],
)
def test_a_bad_request_is_one_clear_error(quickstart, change, message):
    with pytest.raises(ValueError, match=message):
        quickstart["model"].rank([quickstart["request"] | change])


def test_loading_names_what_is_wrong(quickstart, tmp_path):
    with pytest.raises(ValueError, match="no trained model of a row 'dnr'; did you mean 'dnr_b'"):
        dnr_jax.load(quickstart["folder"], row="dnr")
    with pytest.raises(FileNotFoundError, match="there is no run folder"):
        dnr_jax.load(tmp_path / "none", row="dnr_b")


def test_a_changed_parameter_is_noticed(quickstart):
    file = quickstart["folder"] / "models" / "retriever" / "parameters.npz"
    content = file.read_bytes()
    try:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ValueError, match=r"parameters.npz is missing or changed"):
            dnr_jax.load(quickstart["folder"], row="retriever")
    finally:
        file.write_bytes(content)


def test_every_public_name_is_there():
    for name in dnr_jax.__all__:
        assert getattr(dnr_jax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = dnr_jax.lode
