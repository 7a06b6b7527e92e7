"""Smoke modes of the scoring and start-up benchmarks, and that a second start compiles nothing."""

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


def test_a_second_start_compiles_nothing_and_is_faster(tmp_path):
    empty, warm = smoke(startup, tmp_path)
    assert [row["cache"] for row in (empty, warm)] == list(startup.SMOKE)
    assert empty["programs"] == warm["programs"] == warm["of these read"] <= 15
    assert empty["of these read"] < 3
    assert warm["compiling s"] < empty["compiling s"]
    for row in (empty, warm):
        assert 0 < row["row begins s"] < row["first step s"] < row["run s"]
