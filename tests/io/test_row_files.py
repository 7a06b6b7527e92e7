"""A finished row is believed only while it is what was written."""

import json

import numpy as np
import pytest

from dnr_jax.io import model_files, row_files
from dnr_jax.io.row_files import RowResults
from dnr_jax.json_files import DamagedError

RECORDS = [{"row": "a", "seed": 0, "metrics": {"n@6": 0.1 + 0.2, "auc": float("nan")}}]
COLUMNS = {
    "model": np.array(["m", "m"], object),
    "seed": np.zeros(2, np.int32),
    "request_id": np.array([7, 8]),
    "n@6": np.array([0.5, np.nan], np.float32),
}


@pytest.fixture
def run(tmp_path):
    """Return a run folder that holds one finished row, trained over two epochs."""
    lines = [{"row": row, "seed": 0, "epoch": n, "loss": 0.5} for n in (1, 2) for row in "ab"]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    finish(tmp_path)
    return tmp_path


def finish(folder):
    row_files.write_analysis(folder, "a", {"scores": np.arange(3.0)})
    model_files.save(folder / "models" / "a", {"row": "a"}, {"layer": {"bias": np.arange(2.0)}})
    row_files.write(folder, "a", RowResults(RECORDS, COLUMNS))


def test_a_row_comes_back_as_it_was(run, caplog):
    found = row_files.read(run, "a")
    assert found.records == [{"row": "a", "seed": 0, "metrics": {"n@6": 0.1 + 0.2, "auc": None}}]
    assert list(found.columns) == list(COLUMNS)
    for name, column in COLUMNS.items():
        np.testing.assert_array_equal(found.columns[name], column)
    with np.load(run / "analysis" / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["scores"], np.arange(3.0))
    assert row_files.read(run, "b") is None
    assert not caplog.text
    assert not list(run.rglob("*.tmp"))


FILES = (
    *("rows/a.json", "rows/a.parquet", "analysis/a.npz"),
    *("models/a/model.json", "models/a/parameters.npz"),
)


def digit(content):
    place = content.index(b"0.30000000000000004")
    return content[:place] + b"0.40000000000000004" + content[place + 19 :]


def seal(content):
    place = content.index(b'"seal": "') + 9
    return (
        content[:place]
        + (b"1" if content[place : place + 1] == b"0" else b"0")
        + content[place + 1 :]
    )


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("rows/a.json", digit),
        ("rows/a.json", seal),
        *((name, flip) for name in FILES),
        *((name, lambda content: content[: len(content) // 2]) for name in FILES),
        *((name, lambda content: bytes(len(content))) for name in FILES),
        *((name, lambda content: b"") for name in FILES),
        *((name, lambda content: None) for name in FILES[1:]),
        ("rows/a.json", lambda content: b'{"rows": []}'),
        ("rows/a.json", lambda content: content.replace(b'"files": {', b'"files": 3, "f": {')),
    ],
)
def test_what_was_changed_is_scored_again_with_a_word(run, name, damage, caplog):
    path = run / name
    changed = damage(path.read_bytes())
    path.unlink() if changed is None else path.write_bytes(changed)
    assert row_files.read(run, "a") is None
    assert str(path) in caplog.text
    assert "scored again from its checkpoint" in caplog.text
    finish(run)
    assert row_files.read(run, "a") is not None


def test_layout_of_the_file_does_not_matter(run, caplog):
    path = run / "rows" / "a.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=7))
    assert row_files.read(run, "a") is not None
    assert not caplog.text


@pytest.mark.parametrize("change", [lambda text: text.replace("0.5", "0.6", 1), lambda text: ""])
def test_changed_training_records_are_told_but_cost_nothing(run, change, caplog):
    path = run / "metrics.jsonl"
    path.write_text(change(path.read_text()))
    assert row_files.read(run, "a") is not None
    assert f"{path} no longer holds what was recorded while row a was trained" in caplog.text
    assert "checkpoints/a" in caplog.text


def test_records_of_other_rows_do_not_matter(run, caplog):
    path = run / "metrics.jsonl"
    path.write_text(
        "".join(line + "\n" for line in path.read_text().splitlines() if '"b"' not in line)
    )
    assert row_files.read(run, "a") is not None
    assert not caplog.text


def test_a_folder_in_place_of_the_file_is_refused(run):
    (run / "rows" / "a.json").unlink()
    (run / "rows" / "a.json").mkdir()
    with pytest.raises(DamagedError, match=r"rows/a\.json is a folder where a file should be"):
        row_files.read(run, "a")
