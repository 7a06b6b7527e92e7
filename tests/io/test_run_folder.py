import json
import signal
import subprocess
import sys
from pathlib import Path

import ml_collections
import numpy as np
import pyarrow.parquet as pq
import pytest

import dnr_jax
from dnr_jax import durable
from dnr_jax.io import environment, per_request, run_folder

ROOT = Path(dnr_jax.__file__).parents[1]
CONFIG = {"seed": 0, "data": {"name": "recflow", "path": ""}, "train": {"seeds": (0, 1)}}


@pytest.fixture(autouse=True)
def known_environment(monkeypatch):
    about = {"command": "python -m x", "packages": {"jax": "1"}}
    monkeypatch.setattr(environment, "describe", lambda: dict(about))
    return about


def read(path):
    return json.loads(path.read_text())


def test_new_folder_holds_config_and_environment(tmp_path):
    config = ml_collections.ConfigDict(CONFIG).to_dict()
    with run_folder.open_run(tmp_path / "a" / "b", config) as run:
        assert read(run.path / "config.json")["train"] == {"seeds": [0, 1]}
        assert read(run.path / "environment.json")["packages"] == {"jax": "1"}
        assert run.checkpoints("prm") == run.path / "checkpoints" / "prm"


def test_same_config_resumes(tmp_path):
    for epoch in (1, 2):
        with run_folder.open_run(tmp_path, CONFIG) as run:
            run.append_metrics({"row": "score", "epoch": epoch})
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_changed_config_is_refused_and_every_key_named(tmp_path):
    with run_folder.open_run(tmp_path, CONFIG) as run:
        run.append_metrics({"row": "score", "epoch": 1})
    changed = {"seed": 0, "data": {"name": "movielens", "path": ""}, "extra": 1}
    with pytest.raises(ValueError, match="another config") as error:
        run_folder.open_run(tmp_path, changed)
    text = str(error.value)
    assert "config.data.name: saved 'recflow', now 'movielens'" in text
    assert "config.extra: saved '(absent)', now 1" in text
    assert "config.train.seeds: saved [0, 1], now '(absent)'" in text
    assert "data.path" not in text
    assert "--workdir" in text
    run_folder.open_run(tmp_path, CONFIG).close()  # the refusal freed the lock


def test_a_folder_without_any_work_takes_the_new_config(tmp_path):
    run_folder.open_run(tmp_path, CONFIG).close()
    with run_folder.open_run(tmp_path, CONFIG | {"seed": 7}) as run:
        assert read(run.path / "config.json")["seed"] == 7


def test_results_without_config_are_refused(tmp_path):
    run_folder.open_run(tmp_path, CONFIG).close()
    (tmp_path / "config.json").unlink()
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ValueError, match=r"results\.json but no config\.json"):
        run_folder.open_run(tmp_path, CONFIG)


def test_workdir_that_is_a_file(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        run_folder.open_run(tmp_path / "f", CONFIG)


def test_other_environment_is_noted(tmp_path, known_environment, caplog):
    run_folder.open_run(tmp_path, CONFIG).close()
    known_environment["packages"] = {"jax": "2"}
    for _ in range(2):
        run_folder.open_run(tmp_path, CONFIG).close()
    saved = read(tmp_path / "environment.json")
    assert saved["packages"] == {"jax": "1"}
    assert saved["resumed"] == [{"packages": {"jax": "2"}}]
    assert caplog.text.count("another environment") == 1


def test_the_command_of_a_folder_is_the_latest_one(tmp_path, known_environment, caplog):
    run_folder.open_run(tmp_path, CONFIG).close()
    first = read(tmp_path / "environment.json")
    known_environment["command"] = "the same with more rows"
    run_folder.open_run(tmp_path, CONFIG).close()
    assert read(tmp_path / "environment.json") == first | {"command": "the same with more rows"}
    assert not caplog.text


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"command": "x"', '{"packages": 1}'])
def test_a_damaged_environment_is_made_anew_with_a_warning(tmp_path, content, caplog):
    run_folder.open_run(tmp_path, CONFIG).close()
    whole = (tmp_path / "environment.json").read_bytes()
    (tmp_path / "environment.json").write_text(content)
    run_folder.open_run(tmp_path, CONFIG).close()
    assert (tmp_path / "environment.json").read_bytes() == whole
    assert f"{tmp_path / 'environment.json'} " in caplog.text
    caplog.clear()
    run_folder.open_run(tmp_path, CONFIG).close()
    assert not caplog.text


def test_leftovers_of_killed_writes_are_swept(tmp_path):
    run_folder.open_run(tmp_path, CONFIG).close()
    for folder in (".", "rows", "plots", "analysis"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / ".x.png.0123456789abcdef.tmp").write_bytes(b"half")
    encoders = durable.unfinished(tmp_path / "encoders")  # where `data.folders` makes a folder
    encoders.mkdir()
    (encoders / "encoders.json").write_bytes(b"half")
    run_folder.open_run(tmp_path, CONFIG).close()
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("name", ["metrics.jsonl", "timings.jsonl"])
def test_a_bad_line_costs_no_run_and_is_said_once(tmp_path, name, caplog):
    with run_folder.open_run(tmp_path, CONFIG) as run:
        train(run, 1, 4)
        run.append_timings(*({"row": "b", "seconds": float(n)} for n in range(6)))
    whole = (tmp_path / name).read_bytes().splitlines(keepends=True)
    (tmp_path / name).write_bytes(b"".join([*whole[:2], b'{"rew": "b"}\n', *whole[3:]]))
    with run_folder.open_run(tmp_path, CONFIG) as run:
        run.rewind_metrics("b", 3)
    assert (tmp_path / name).read_bytes() == b"".join([*whole[:2], *whole[3:]])
    assert f"{tmp_path / name}: line 3 cannot be read" in caplog.text
    caplog.clear()
    run_folder.open_run(tmp_path, CONFIG).close()
    assert not caplog.text


@pytest.mark.parametrize(
    "change", [lambda lines: lines[:2] + lines[4:], lambda lines: [], lambda lines: lines[::-1]]
)
def test_records_that_are_not_those_of_the_checkpoint_are_told(tmp_path, change, caplog):
    path = tmp_path / "metrics.jsonl"
    with run_folder.open_run(tmp_path, CONFIG) as run:
        run.append_metrics({"row": "a", "seed": 0, "epoch": 9, "loss": 1.0})
        train(run, 1, 4)
        digest = run.metrics_digest("b")
        train(run, 4, 6)
    with run_folder.open_run(tmp_path, CONFIG) as run:
        run.rewind_metrics("b", 3, digest)
        assert run.metrics_digest("b") == digest
    assert not caplog.text
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))
    with run_folder.open_run(tmp_path, CONFIG) as run:
        run.rewind_metrics("b", 3, digest)
    assert f"{path} does not hold what row b recorded up to epoch 3" in caplog.text


def test_a_changed_digit_of_a_record_is_told(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    with run_folder.open_run(tmp_path, CONFIG) as run:
        train(run, 1, 4)
        digest = run.metrics_digest("b")
    path.write_text(path.read_text().replace('"loss": 2.0', '"loss": 2.5', 1))
    with run_folder.open_run(tmp_path, CONFIG) as run:
        run.rewind_metrics("b", 3, digest)
    assert "does not hold what row b recorded" in caplog.text


def test_second_opener_is_refused(tmp_path):
    with (
        run_folder.open_run(tmp_path, CONFIG),
        pytest.raises(ValueError, match="in use by process"),
    ):
        run_folder.open_run(tmp_path, CONFIG)
    run_folder.open_run(tmp_path, CONFIG).close()


HOLDER = """
import sys, time
from dnr_jax.io import run_folder
run = run_folder.open_run(sys.argv[1], {})
print("open", flush=True)
time.sleep(60)
"""


def test_lock_holds_across_processes_and_dies_with_its_holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(ValueError, match=f"in use by process {process.pid}"):
            run_folder.open_run(tmp_path, {})
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    run_folder.open_run(tmp_path, {}).close()


def train(run, first, last):
    for epoch in range(first, last):
        seeds = ({"row": "b", "seed": s, "epoch": epoch, "loss": np.float32(epoch)} for s in (0, 1))
        run.append_metrics(*seeds)


def test_resumed_metrics_equal_uninterrupted(tmp_path):
    files = []
    for name, stop in (("whole", None), ("resumed", 3)):
        with run_folder.open_run(tmp_path / name, CONFIG) as run:
            run.append_metrics({"row": "a", "seed": 0, "epoch": 9, "loss": 1.0})
            train(run, 0, stop or 5)
        path = tmp_path / name / "metrics.jsonl"
        files.append(path)
        if stop:
            with open(path, "ab") as file:
                file.write(b'{"row": "b", "se')  # what a kill leaves
            with run_folder.open_run(tmp_path / name, CONFIG) as run:
                run.rewind_metrics("b", 1)  # the checkpoint is one epoch older than the records
                train(run, 2, 5)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes().count(b"\n") == 11


def test_rewind_without_records(tmp_path):
    with run_folder.open_run(tmp_path, CONFIG) as run:
        run.rewind_metrics("a", -1)
        assert not (tmp_path / "metrics.jsonl").exists()


def test_timings_are_apart(tmp_path):
    with run_folder.open_run(tmp_path, CONFIG) as run:
        run.append_timings({"row": "a", "train_seconds": 1.5})
    assert not (tmp_path / "metrics.jsonl").exists()
    assert read(tmp_path / "timings.jsonl") == {"row": "a", "train_seconds": 1.5}


def test_per_request_round_trip(tmp_path):
    columns = {
        "model": np.array(["a", "b"]),
        "seed": np.array([0, 1], np.int32),
        "request_id": np.array([5, 6], np.int64),
        "n@6": np.array([0.5, np.nan], np.float32),
    }
    file = tmp_path / run_folder.PER_REQUEST
    per_request.write(file, columns)
    found = pq.read_table(file)
    assert [str(t) for t in found.schema.types] == ["string", "int32", "int64", "float"]
    for name, column in columns.items():
        np.testing.assert_array_equal(found[name].to_numpy(zero_copy_only=False), column)
    with pytest.raises(ValueError, match="differ in length"):
        per_request.write(file, columns | {"auc": np.zeros(3)})
    assert [path.name for path in tmp_path.iterdir()] == [run_folder.PER_REQUEST]


def test_analysis_round_trip(tmp_path):
    with run_folder.open_run(tmp_path, CONFIG) as run:
        run.write_analysis("dnr", scores=np.arange(3.0), labels=np.zeros(3))
    with np.load(tmp_path / "analysis" / "dnr.npz") as arrays:
        np.testing.assert_array_equal(arrays["scores"], np.arange(3.0))
    assert [p.name for p in (tmp_path / "analysis").iterdir()] == ["dnr.npz"]
