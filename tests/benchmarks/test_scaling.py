"""Smoke modes of the scaling benchmark, and what its columns must say of any run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import retriever_steps, scaling

ROOT = Path(__file__).parents[2]


def smoke(what, folder, *flags):
    path = folder / "rows.json"
    scaling.main([what, "--smoke", "--json", str(path), *flags])
    return json.loads(path.read_text())["rows"]


@pytest.mark.parametrize(
    ("what", "time", "count"), [("requests", "seconds/epoch", 2), ("catalogue", "ms/step", 3)]
)
def test_cost_is_measured_at_every_size(what, time, count, tmp_path, monkeypatch):
    """Of nothing: the same training is compiled in the tests of `stream` and of `memory`."""
    monkeypatch.setattr(scaling, "resident", lambda work, data, batch_size: lambda: np.zeros(1))
    rows = smoke(what, tmp_path)
    assert len(rows) == count
    assert all(row[time] > 0 for row in rows)


def test_the_slope_is_the_power_of_the_size():
    assert scaling.slope([1, 2, 4, 8], [3 * n**1.5 for n in (1, 2, 4, 8)]) == pytest.approx(1.5)


def test_streamed_training_has_the_losses_of_resident_training(tmp_path):
    rows = smoke("stream", tmp_path)
    assert [row["data"] for row in rows] == ["device", "host, 2 a part"]
    assert all(row["losses apart (relative)"] < 1e-6 for row in rows)


def test_sharded_tables_are_never_whole(tmp_path):
    """On two fake devices, in a process of its own: JAX settles their number once."""
    path = tmp_path / "memory.json"
    command = [sys.executable, "-m", "benchmarks.scaling", "memory", "--smoke"]
    command += ["--cpu-devices", "2", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.read_text())["rows"]
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        assert two["state GiB"] < 0.7 * one["state GiB"]
        assert not two["table rows gathered whole"]
    assert all(row["updated in place"] for row in rows)


def test_steps_of_retrievers_are_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(retriever_steps, "UPDATES", ("lazy_adam",))
    retriever_steps.main(["--smoke", "--json", str(tmp_path / "rows.json")])
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["retriever"] for row in rows] == list(retriever_steps.RETRIEVERS)
    assert all(row["ms/step"] > 0 for row in rows)
