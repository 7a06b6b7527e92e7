"""Rows of several run folders in one: what one run of all rows would have left."""

import json
import shutil

import pytest
from program import call

from dnr_jax import experiment
from dnr_jax.experiment import scoring

__all__ = ["call"]

FINAL = ("results.json", "metrics.jsonl", "per_request.parquet", "audit.json", "config.json")


@pytest.fixture(scope="module")
def halves(resumable, uninterrupted, run_table, tmp_path_factory):
    """Two folders of one table: its first row, and a copy that has the second alone."""
    root = tmp_path_factory.mktemp("halves")
    first = run_table(resumable | {"table": "retriever"}, root / "first")
    second = shutil.copytree(uninterrupted, root / "second")
    (second / "rows" / "retriever.json").unlink()
    return first, second


@pytest.fixture
def copies(halves, tmp_path):
    return [shutil.copytree(half, tmp_path / half.name) for half in halves]


def change(file, **parts):
    file.write_text(json.dumps(json.loads(file.read_text()) | parts))


def test_it_is_what_one_run_of_all_rows_leaves(halves, resumable, uninterrupted, tmp_path, caplog):
    merged = experiment.merge_runs(halves, tmp_path / "merged")
    assert f"row retriever of {halves[1]} is not finished: it is left out" in caplog.text
    for name in FINAL:
        assert (merged / name).read_bytes() == (uninterrupted / name).read_bytes(), name
    timed = [
        json.loads(line)["row"] for line in (merged / "timings.jsonl").read_text().splitlines()
    ]
    assert list(dict.fromkeys(timed)) == ["first stage", "retriever", "dnr_b"]
    before = sorted((p, p.stat().st_mtime_ns) for p in (merged / "checkpoints").rglob("*"))
    experiment.run_all(resumable, merged)
    assert sorted((p, p.stat().st_mtime_ns) for p in (merged / "checkpoints").rglob("*")) == before


def test_the_program_prints_the_table_and_who_made_which_row(halves, tmp_path, call):
    for half in (1, 2):
        code, said, err = call("merge", *halves, "--out", tmp_path / "merged")
        assert code == (0 if half == 1 else 1)
    assert f"{tmp_path / 'merged'} exists already" in err
    shutil.rmtree(tmp_path / "merged")
    _, said, _ = call("merge", *halves, "--out", tmp_path / "merged")
    assert "DNR-B" in said
    assert "Rows dnr_b by: " in said


def test_of_a_row_that_several_have_the_first_is_taken(uninterrupted, copies, tmp_path):
    change(copies[1] / "environment.json", cpu="another")
    for runs, expected in (([uninterrupted, copies[1]], []), (copies, [(["dnr_b"], "another")])):
        merged = experiment.merge_runs(runs, tmp_path / f"of-{runs[0].name}")
        about = json.loads((merged / "environment.json").read_text())
        assert [(part["rows"], part["cpu"]) for part in about.get("merged", [])] == expected
    again = experiment.merge_runs([merged, copies[1]], tmp_path / "again")
    assert (again / "environment.json").read_bytes() == (merged / "environment.json").read_bytes()


def test_rows_that_do_not_belong_together_are_refused(copies, uninterrupted, tmp_path):
    out = tmp_path / "merged"
    first, second = copies
    change(second / "audit.json", fingerprint="4567")
    with pytest.raises(ValueError, match=r"with data \w+, .*second with data 4567: the rows"):
        experiment.merge_runs(copies, out)
    with pytest.raises(FileNotFoundError, match="missing is not a run folder with rows: it has no"):
        experiment.merge_runs([first, tmp_path / "missing"], out)
    config = json.loads((uninterrupted / "config.json").read_text())
    config["rows"]["retriever"]["label"] = "other"
    (first / "config.json").write_text(json.dumps(config | {"seed": 5}))
    with pytest.raises(ValueError, match="another config") as refused:
        experiment.merge_runs([uninterrupted, first], out)
    assert "config.seed: 0 there, 5 here" in str(refused.value)
    assert "config.rows.retriever.label: 'retriever order' there, 'other' here" in str(
        refused.value
    )
    with pytest.raises(ValueError, match=r"second is named twice: name each run folder once"):
        experiment.merge_runs([second, first / ".." / "second"], out)
    assert not out.exists()


def test_data_may_lie_elsewhere_on_each_machine(copies, tmp_path):
    config = json.loads((copies[1] / "config.json").read_text())
    config["data"]["path"] = "/data/elsewhere"
    (copies[1] / "config.json").write_text(json.dumps(config))
    assert experiment.merge_runs(copies, tmp_path / "merged").exists()


def test_nothing_is_left_half_written(copies, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scoring, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        experiment.merge_runs(copies, tmp_path / "merged")
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}
    (copies[0] / "rows" / "retriever.json").unlink()
    with pytest.raises(ValueError, match="has a finished row"):
        experiment.merge_runs(copies[:1], tmp_path / "merged")
