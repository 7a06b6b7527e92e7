"""Smoke mode of the benchmark of pool sizes: run folders, a table, and what is left out."""

import json

from benchmarks import pool_sizes


def test_pairs_that_can_be_run_are_run_and_the_others_named(tmp_path, capsys):
    path = tmp_path / "rows.json"
    flags = ["--smoke", "--json", str(path), "--workdir", str(tmp_path / "runs")]
    arguments = pool_sizes.parser().parse_args([*flags, "--cache", str(tmp_path / "cache")])
    pool_sizes.main(arguments)
    [row] = json.loads(path.read_text())["rows"]
    assert (row["N"], row["K"]) == (8, 2)
    assert 0 < row["measured"] <= row["requests"]
    assert all(value > 0 for name, value in row.items() if "ms" in name)
    assert 0 < float(row["retriever order"]) < 100
    assert "left out: N = 8 with K = 8" in capsys.readouterr().out
    assert (tmp_path / "runs" / "n8_k2" / "results.json").exists()


def test_as_many_places_as_candidates_are_left_out():
    run, left_out = pool_sizes.pairs(pool_sizes.SIZES, pool_sizes.SLATES)
    assert len(run) == 15
    assert left_out == [(20, 20)]
