"""A run goes on where it was: after damage, after a fault, and never under another config."""

import json
import shutil
from types import SimpleNamespace

import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from dnr_jax import experiment, main
from dnr_jax.experiment import training

FINAL = ("results.json", "metrics.jsonl", "per_request.parquet", "audit.json")
ROW = "dnr_b"


def assert_same_results(folder, reference):
    for name in FINAL:
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name


@pytest.fixture
def unfinished(uninterrupted, tmp_path):
    """A copy of the run folder as it stood just before its last row was scored."""
    folder = shutil.copytree(uninterrupted, tmp_path / "run")
    for name in ("results.json", "per_request.parquet", f"rows/{ROW}.json"):
        (folder / name).unlink()
    return folder


def versions(folder, name="last"):
    return sorted((folder / "checkpoints" / ROW / name).iterdir())


def flip_bit(version):
    files = [p for p in version.rglob("*") if p.is_file() and p.name != "seal.json"]
    largest = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)


def test_the_same_config_gives_the_same_bytes(resumable, uninterrupted, tmp_path):
    experiment.run(resumable, tmp_path / "again")
    assert_same_results(tmp_path / "again", uninterrupted)


def test_a_finished_run_started_again_only_rewrites_its_results(resumable, uninterrupted, tmp_path):
    folder = shutil.copytree(uninterrupted, tmp_path / "run")
    (folder / "results.json").unlink()
    before = [p.name for p in versions(folder)]
    experiment.run(resumable, folder)
    assert_same_results(folder, uninterrupted)
    assert [p.name for p in versions(folder)] == before


def test_a_torn_checkpoint_falls_back_to_the_one_before(
    resumable, uninterrupted, unfinished, caplog
):
    flip_bit(versions(unfinished)[-1])
    experiment.run(resumable, unfinished)
    assert "torn" in caplog.text
    assert_same_results(unfinished, uninterrupted)


def test_two_torn_checkpoints_are_an_error_that_names_the_folder(resumable, unfinished):
    for version in versions(unfinished):
        flip_bit(version)
    with pytest.raises(ValueError, match=r"is torn.*delete .*checkpoints/dnr_b to train") as error:
        experiment.run(resumable, unfinished)
    assert str(unfinished) in str(error.value)


def test_another_config_is_refused_before_any_work(tiny, resumable, unfinished, monkeypatch):
    monkeypatch.setattr(experiment.datasets, "prepare", None)  # work would fail
    changed = tiny(table=resumable["table"], reranker={"name": "linear"}, train={"epochs": 3})
    before = sorted((p, p.stat().st_mtime_ns) for p in unfinished.rglob("*") if p.name != ".lock")
    with pytest.raises(ValueError, match=r"config\.train\.epochs: saved 2, now 3"):
        experiment.run(changed, unfinished)
    after = sorted((p, p.stat().st_mtime_ns) for p in unfinished.rglob("*") if p.name != ".lock")
    assert after == before


def test_other_data_is_refused_before_any_work(resumable, unfinished):
    file = unfinished / "audit.json"
    audit = json.loads(file.read_text())
    file.write_text(json.dumps(audit | {"fingerprint": "0123456789abcdef"}))
    with pytest.raises(ValueError, match="made with data 0123456789abcdef, now it is"):
        experiment.run(resumable, unfinished)
    assert json.loads(file.read_text())["fingerprint"] == "0123456789abcdef"


def test_a_loss_that_is_not_finite_stops_the_run_which_can_go_on_later(
    resumable, uninterrupted, tmp_path, monkeypatch
):
    """Memory goes bad after the first epoch: the run ends, and a healthy one finishes it."""
    folder, fit = tmp_path / "run", training.fit

    def fit_with_fault(progress, data, plan, validate, save):
        progress = fit(progress, data, plan._replace(epochs=1), validate, save)
        bad = data.replace(scores=data.scores.at[3].set(jnp.nan))
        return fit(progress, bad, plan, validate, save)

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", fit_with_fault)
        patch.setattr(main, "_CONFIG", SimpleNamespace(value=ConfigDict(resumable)))
        patch.setattr(main, "_WORKDIR", SimpleNamespace(value=str(folder)))
        patch.setattr(main, "_COORDINATOR", SimpleNamespace(value=None))
        patch.setattr(main, "_log_plainly", lambda: None)
        with pytest.raises(SystemExit, match=r"^error: the term '\w+' is not finite at step 4 \("):
            main._main([])
    assert not (folder / "results.json").exists()
    assert len(versions(folder)) == 1
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["epoch"] for line in lines} == {1}
    experiment.run(resumable, folder)
    assert_same_results(folder, uninterrupted)
