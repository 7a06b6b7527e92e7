"""Smoke modes of the scoring and start-up benchmarks."""

import json

import pytest

from benchmarks import harness, scoring, startup


def smoke(module, folder):
    path = folder / "rows.json"
    module.main(harness.parser("").parse_args(["--smoke", "--json", str(path)]))
    return json.loads(path.read_text())["rows"]


def test_scoring_measures_every_part(tmp_path):
    rows = smoke(scoring, tmp_path)
    parts = [row["part"] for row in rows]
    assert parts.count("one request, one core") == parts.count("batch") == 2
    assert parts.count("metrics") >= 2
    for row in rows:
        assert 0 < row["best ms"] <= row["p50 ms"] <= row["p99 ms"]
        assert row["requests/s at p50"] == pytest.approx(1e3 * row["requests"] / row["p50 ms"])


def test_a_start_is_timed_from_its_first_line_to_its_end(tmp_path):
    """That the second one compiles nothing is tested where runs are killed and started again."""
    [row] = smoke(startup, tmp_path)
    assert row["cache"] == "empty"
    assert row["of these read"] < 3 < row["programs"] <= 15
    assert 0 < row["compiling s"] < row["run s"]
    assert 0 < row["row begins s"] < row["first step s"] < row["run s"]
