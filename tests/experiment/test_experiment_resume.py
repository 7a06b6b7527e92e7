"""A run goes on where it was: after damage, after a fault, and never under another config."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard_files import curves

from dnr_jax import experiment
from dnr_jax.experiment import training
from dnr_jax.training.epoch import NonFiniteError

FINAL = ("results.json", "metrics.jsonl", "per_request.parquet", "audit.json")
ROW = "dnr_b"


def assert_same_results(folder, reference):
    for name in FINAL:
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name


def assert_event_files_hold_every_record_once(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    recorded = sorted(
        (f"{record['row']}/seed-{record['seed']}", name, record["epoch"], np.float32(value))
        for record in map(json.loads, lines)
        for name, value in record.items()
        if isinstance(value, float) and name != "learning_rate_factor"
    )
    assert curves(folder / "tensorboard") == recorded


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
    experiment.run_all(resumable, tmp_path / "again")
    assert_same_results(tmp_path / "again", uninterrupted)


def test_a_finished_run_started_again_only_rewrites_its_results(resumable, uninterrupted, tmp_path):
    folder = shutil.copytree(uninterrupted, tmp_path / "run")
    (folder / "results.json").unlink()
    before = [p.name for p in versions(folder)]
    experiment.run_all(resumable, folder)
    assert_same_results(folder, uninterrupted)
    assert [p.name for p in versions(folder)] == before


def test_a_torn_checkpoint_falls_back_to_the_one_before(
    resumable, uninterrupted, unfinished, caplog
):
    flip_bit(versions(unfinished)[-1])
    experiment.run_all(resumable, unfinished, tensorboard=True)
    assert "torn" in caplog.text
    assert_same_results(unfinished, uninterrupted)
    assert_event_files_hold_every_record_once(unfinished)  # the last epoch was trained twice


def test_two_torn_checkpoints_are_an_error_that_names_the_folder(resumable, unfinished):
    for version in versions(unfinished):
        flip_bit(version)
    with pytest.raises(ValueError, match=r"is torn.*delete .*checkpoints/dnr_b to train") as error:
        experiment.run_all(resumable, unfinished)
    assert str(unfinished) in str(error.value)


def test_another_config_is_refused_before_any_work(tiny, resumable, unfinished, monkeypatch):
    monkeypatch.setattr(experiment.datasets, "prepare", None)  # work would fail
    changed = tiny(table=resumable["table"], reranker={"name": "linear"}, train={"epochs": 3})
    before = sorted((p, p.stat().st_mtime_ns) for p in unfinished.rglob("*") if p.name != ".lock")
    with pytest.raises(ValueError, match=r"config\.rows\.dnr_b\.train\.epochs: saved 2, now 3"):
        experiment.run_all(changed, unfinished)
    after = sorted((p, p.stat().st_mtime_ns) for p in unfinished.rglob("*") if p.name != ".lock")
    assert after == before


def test_other_data_is_refused_before_any_work(resumable, unfinished, monkeypatch):
    monkeypatch.setattr(experiment.datasets, "prepare", None)  # work would fail
    file = unfinished / "audit.json"
    audit = json.loads(file.read_text())
    file.write_text(json.dumps(audit | {"fingerprint": "0123456789abcdef"}))
    with pytest.raises(ValueError, match="made with data 0123456789abcdef, now they are"):
        experiment.run_all(resumable, unfinished)
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
        with pytest.raises(NonFiniteError, match=r"^the term '\w+' is not finite at step 4 \("):
            experiment.run_all(resumable, folder)
    assert not (folder / "results.json").exists()
    assert len(versions(folder)) == 1
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["epoch"] for line in lines} == {1}
    experiment.run_all(resumable, folder)
    assert_same_results(folder, uninterrupted)


def edit(folder, change):
    """Rewrite the saved config as an older version or another table would have left it."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))


def test_a_folder_from_before_a_knob_or_a_row_was_goes_on(resumable, uninterrupted, unfinished):
    def older(config):
        del config["rows"]["retriever"]
        del config["devices"]
        del config["rows"][ROW]["train"]["stream"]
        del config["rows"][ROW]["reranker"]["score_entry"]
        config["rows"]["gone"] = {"model": "gone"}

    edit(unfinished, older)
    experiment.run_all(resumable, unfinished)
    assert_same_results(unfinished, uninterrupted)
    assert (unfinished / "config.json").read_bytes() == (uninterrupted / "config.json").read_bytes()


def test_a_knob_that_the_folder_does_not_have_must_have_its_default(tiny, resumable, unfinished):
    edit(unfinished, lambda config: config["rows"][ROW]["train"].pop("patience"))
    stricter = tiny(reranker={"name": "linear"}, table=resumable["table"], train={"patience": 7})
    with pytest.raises(ValueError, match=r"dnr_b\.train\.patience: saved '\(absent\)', now 7"):
        experiment.run_all(stricter, unfinished)


def test_rows_come_and_go_and_a_row_that_comes_back_is_compared(tiny, uninterrupted, tmp_path):
    folder = shutil.copytree(uninterrupted, tmp_path / "run")

    def run(table, **changes):
        experiment.run_all(tiny(reranker={"name": "linear"}, table=table, **changes), folder)
        return {row["row"] for row in json.loads((folder / "results.json").read_text())["rows"]}

    assert run("random") == {"random"}
    assert run("random,dnr_b") == {"random", "dnr_b"}
    with pytest.raises(ValueError, match=r"config\.rows\.dnr_b\.train\.epochs: saved 2, now 3"):
        run("dnr_b", train={"epochs": 3})
    assert run("retriever", train={"epochs": 3}) == {"retriever"}


def test_what_no_row_reads_and_how_paths_are_spelt_does_not_matter(
    tiny, resumable, uninterrupted, unfinished, shared, tmp_path, monkeypatch
):
    monkeypatch.chdir(shared)
    changed = tiny(
        reranker={"name": "linear"},
        table=resumable["table"],
        cache=str(tmp_path / "cache"),
        data={"path": "./ratings/../ratings"},
        rerankers={"dcdr": {"beam": 2}},
        divergences={"histogram": {"bins": 8}},
    )
    experiment.run_all(changed, unfinished)
    assert_same_results(unfinished, uninterrupted)
