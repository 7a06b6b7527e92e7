"""A packed model holds all that it needs, wherever it is copied."""

import json
import logging
import shutil
from datetime import datetime

import numpy as np
import pytest
from scipy.stats import bootstrap

import dnr_jax
from dnr_jax import sealed
from dnr_jax.io import per_request

REQUEST = {"items": [{"item_id": 3}, {"item_id": 5}, {"item_id": -7}], "scores": [1.0, 9.0, 4.0]}


def test_a_packed_model_scores_as_in_its_run(run, packed, tmp_path):
    shutil.copytree(packed, tmp_path / "elsewhere")
    [here] = dnr_jax.load(run, row="score").scores([REQUEST])
    [there] = dnr_jax.load(tmp_path / "elsewhere").scores([REQUEST])
    np.testing.assert_array_equal(here, there)
    found = {path.name for path in packed.iterdir()}
    assert found == {"model.json", "parameters.npz", "catalogue.npz", "encoders"}


def test_one_row_of_a_run_is_a_model_too(run):
    [scores] = dnr_jax.load(run / "models" / "score").scores([REQUEST])
    np.testing.assert_array_equal(scores, dnr_jax.load(run, row="score").scores([REQUEST])[0])


def test_what_cannot_be_loaded_is_named(run, packed, tmp_path):
    with pytest.raises(ValueError, match=r"say by row .* which of its models: plain, retr"):
        dnr_jax.load(run)
    with pytest.raises(ValueError, match=r"is one model, not a run folder: leave row='score' out"):
        dnr_jax.load(packed, row="score")
    with pytest.raises(ValueError, match=r"it holds no trained model"):
        dnr_jax.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no run folder or model"):
        dnr_jax.load(tmp_path / "none")


def test_one_request_without_a_list_is_named(packed):
    with pytest.raises(
        ValueError, match=r"of type dict, expected a list of requests, as \[request\]"
    ):
        dnr_jax.load(packed).rank(REQUEST)


def test_packing_makes_a_whole_folder_or_none(run, packed, tmp_path):
    with pytest.raises(ValueError, match="no trained model of a row 'scores'; did you mean 'score"):
        dnr_jax.pack(run, "scores", tmp_path / "model")
    with pytest.raises(FileExistsError, match="exists already"):
        dnr_jax.pack(run, "score", packed)
    assert not list(tmp_path.iterdir())


def test_a_model_is_replaced_only_if_asked_and_nothing_else_is(run, tmp_path):
    model = dnr_jax.pack(run, "plain", tmp_path / "model")
    dnr_jax.pack(run, "score", model, overwrite=True)
    assert dnr_jax.load(model).card["row"] == "score"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match=r"mine is no model folder, and not replaced"):
        dnr_jax.pack(run, "score", tmp_path / "mine", overwrite=True)


@pytest.mark.parametrize(
    "name",
    ["parameters.npz", "catalogue.npz", "encoders/encoders.json", "encoders/keys.item_id.npy"],
)
def test_a_changed_file_is_noticed(packed, tmp_path, name):
    copy = tmp_path / "model"
    shutil.copytree(packed, copy)
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:-3] + b" " + content[-2:])
    own = name.rpartition("/")[2]
    with pytest.raises(ValueError, match=f"{own} .*: restore the folder from a copy"):
        dnr_jax.load(copy)


def test_encoders_of_another_run_are_refused(packed, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(packed, copy)
    encoders = dnr_jax.load(copy).encoders
    shutil.rmtree(copy / "encoders")
    encoders._replace(history=encoders.history + 1).save(copy / "encoders")
    with pytest.raises(ValueError, match=r"encoders\.json is not what was written"):
        dnr_jax.load(copy)


def test_scores_do_not_depend_on_what_else_is_asked(run):
    model = dnr_jax.load(run, row="score")
    other = REQUEST | {"items": [{"item_id": 9}], "scores": [0.0]}
    [alone], [_, beside] = model.scores([REQUEST]), model.scores([other, REQUEST])
    np.testing.assert_allclose(alone, beside, atol=1e-6)


def test_the_card_says_where_a_model_is_from_and_how_sure_its_metrics_are(run, packed):
    card = dnr_jax.load(packed).card
    for name, value in dnr_jax.load(run, row="score").card.items():
        assert card[name] == value
    assert datetime.fromisoformat(card["packed"]).tzinfo is not None
    assert set(card["trained_on"]) == {"commit", "python", "packages", "backend", "devices"}
    assert list(card["experiment"]["rows"]) == ["score"]
    assert "path" not in card["experiment"]["data"]
    assert card["report"]["schema"]["columns"]["item_id"] == "item_id (Int64)"
    assert card["score"] == "minmax"
    values = per_request.read(run / "rows" / "score.parquet", cure="")["n@6"]
    values = values[~np.isnan(values)].astype(np.float64)
    low, high = card["intervals"]["test"]["n@6"]
    assert low < card["metrics"]["test"]["n@6"] < high
    theirs = bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
    np.testing.assert_allclose([low, high], theirs, atol=0.15 * (high - low))


def test_a_packed_model_is_packed_again_as_it_is(packed, tmp_path):
    again = dnr_jax.pack(packed, None, tmp_path / "again")
    assert (again / "model.json").read_bytes() == (packed / "model.json").read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda card: card | {"format": 2}, "has format 2, this version reads format 1: install"),
        (lambda card: card | {"format": 0}, "has format 0, .* train it anew, or install an older"),
        (
            lambda card: {n: v for n, v in card.items() if n != "encoders_sha256"},
            "was written before its card said encoders_sha256: train it anew",
        ),
    ],
)
def test_a_card_of_another_time_is_one_clear_error(packed, tmp_path, change, said):
    copy = tmp_path / "model"
    shutil.copytree(packed, copy)
    content = json.loads((copy / "model.json").read_text())
    content.pop("seal")
    sealed.write(copy / "model.json", change(content))
    with pytest.raises(ValueError, match=said):
        dnr_jax.load(copy)


def test_a_later_version_is_noted(packed, tmp_path, caplog):
    copy = tmp_path / "model"
    shutil.copytree(packed, copy)
    content = json.loads((copy / "model.json").read_text())
    content.pop("seal")
    sealed.write(copy / "model.json", content | {"versions": {"dnr_jax": "99.1"}})
    with caplog.at_level(logging.WARNING, "dnr_jax"):
        dnr_jax.load(copy)
    assert "was written by dnr_jax 99.1, this is" in caplog.text
