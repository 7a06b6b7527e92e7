"""Reports of a run folder in which something is wrong: one clear error, or a word and the rest."""

import json
import os

import numpy as np
import pytest

from dnr_jax import reports
from dnr_jax.io import per_request
from dnr_jax.json_files import DamagedError

WRITTEN = ("results.md", "results.tex", "results.csv")


@pytest.fixture
def folder(make_run, monkeypatch):
    monkeypatch.setattr(reports.plots, "DPI", 20)
    return make_run()


def torn(path):
    os.truncate(path, path.stat().st_size // 2)


def zeroed(path):
    path.write_bytes(bytes(path.stat().st_size))


def buried(path):
    path.unlink()
    path.mkdir()


def of_another_kind(path):
    path.write_text('{"hello": "world"}')


@pytest.mark.parametrize("damage", [torn, zeroed, buried, of_another_kind])
@pytest.mark.parametrize("name", ["results.json", "per_request.parquet", "environment.json"])
def test_a_file_that_the_tables_need_is_named_with_the_cure(folder, name, damage):
    damage(folder / name)
    with pytest.raises(DamagedError) as error:
        reports.write(folder)
    assert str(error.value).startswith(str(folder / name))
    assert "same --workdir" in str(error.value) or "move it away" in str(error.value)


@pytest.mark.parametrize("damage", [torn, zeroed])
@pytest.mark.parametrize("name", ["metrics.jsonl", "analysis/prm.npz"])
def test_a_file_that_only_plots_need_costs_no_table(folder, name, damage, caplog):
    damage(folder / name)
    assert "Accuracy" in reports.write(folder)
    assert str(folder / name) in caplog.text
    for written in WRITTEN:
        assert (folder / written).stat().st_size > 0


def test_bad_timings_cost_nothing_but_their_own_line(folder, caplog):
    lines = ['{"row": "prm", "seconds": 20.0}', "\0\0", '{"row": "prm", "seconds": "many"}', "7"]
    (folder / "timings.jsonl").write_text("\n".join(lines) + "\n")
    assert "20.0" in reports.write(folder)
    assert "timings.jsonl: line 2, 4 cannot be read" in caplog.text


def test_a_test_split_without_positives_still_has_its_table(folder):
    content = json.loads((folder / "results.json").read_text())
    for row in content["rows"]:
        row["excluded"] = row["requests"]
        row["metrics"] = dict.fromkeys(row["metrics"])
    (folder / "results.json").write_text(json.dumps(content))
    columns = per_request.read(folder / "per_request.parquet", cure="")
    columns["n@6"] = np.full_like(columns["n@6"], np.nan)
    per_request.write(folder / "per_request.parquet", columns)
    text = " ".join(reports.write(folder).split())
    assert "No request of the test split has a value of N@6: nothing was measured" in text
    assert "no trivial scorers" not in text
    assert "60 requests, of which 60 have no positive" in text
    assert "nan" not in text
    for written in WRITTEN:
        assert (folder / written).stat().st_size > 0


def test_tables_are_written_before_plots(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reports.plots, "save", full)
    with pytest.raises(OSError, match="No space"):
        reports.write(folder)
    assert "(plots/training.png)" in (folder / "results.md").read_text()
