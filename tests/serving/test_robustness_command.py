"""`dnr-jax robustness` on a small finished run."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("shifted") / "made"


@pytest.fixture
def done(call, run, out):
    """What the command said; it runs once."""
    if not (out / "said").exists():
        cache = run.parent / "cache"
        code, said, error = call("robustness", run, "--cache", cache, "--out", out)
        assert code == 0, error
        (out / "said").write_text(said)
    return (out / "said").read_text()


def test_as_trained_is_what_the_run_had_measured(done, run, out):
    """The saved models are scored anew, by another path, to the same numbers."""
    found = json.loads((out / "robustness.json").read_text())
    assert found["metric"] == "n@6"
    records = json.loads((run / "results.json").read_text())["rows"]
    for label, by in found["rows"].items():
        mine = [r for r in records if r["label"] == label and r["split"] == "test"]
        mean = np.mean([r["metrics"]["n@6"] for r in mine])
        assert by["as_trained"]["mean"] == pytest.approx(mean, abs=1e-6)
    assert len(found["rows"]) == 3


def test_each_kind_of_row_answers_as_it_must(done, out):
    rows = json.loads((out / "robustness.json").read_text())["rows"]
    names = ("PRM without scores", "PRM with scores", "retriever order")
    plain, score, order = (rows[name] for name in names)
    assert all(by["change"]["mean"] == 0 for by in plain.values())
    assert any(by["change"]["mean"] != 0 for by in score.values())
    # The order of x is its ranks; 1 - x turns it round.
    assert order["ranks"]["mean"] == order["squared"]["mean"] == order["as_trained"]["mean"]
    assert order["reversed"]["mean"] < order["noise_100"]["mean"] < order["as_trained"]["mean"]


def test_tables_and_figure_are_written(done, out):
    assert "Change from the scores as trained" in done
    assert "PRM without scores" in done
    assert "![robustness](robustness.png)" in (out / "robustness.md").read_text()
    assert (out / "robustness.png").read_bytes().startswith(b"\x89PNG")


def test_a_place_that_cannot_be_written_is_named_before_any_work(call, run, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("dnr_jax.experiment.rescoring.target", pytest.fail)
    code, _, error = call("robustness", run, "--out", tmp_path / "file")
    assert code == 1
    assert f"{tmp_path / 'file'}: File exists" in error


def test_an_unknown_row_is_named(call, run, tmp_path):
    code, _, error = call("robustness", run, "--rows", "plane", "--out", tmp_path / "none")
    assert code == 1
    assert "there is no row 'plane'; did you mean 'plain'?" in error
    assert not (tmp_path / "none").exists()
