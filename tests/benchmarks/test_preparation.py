"""Smoke mode of the benchmark of preparation, and what its tiled days hold."""

import json

import polars as pl

from benchmarks import preparation
from dnr_jax.data.recflow import files


def test_both_cases_are_read_in_processes_of_their_own(tmp_path):
    path = tmp_path / "rows.json"
    preparation.main(preparation.parser().parse_args(["--smoke", "--json", str(path)]))
    rows = json.loads(path.read_text())["rows"]
    assert [(row["case"], row["rows"]) for row in rows] == [
        (case, count) for case in preparation.CASES for count in preparation.SMOKE_ROWS
    ]
    assert all(row["peak MiB"] > 0 and row["rows/s"] > 0 for row in rows)


def test_tiled_days_have_requests_of_their_own(tmp_path):
    size = preparation.write_recflow(tmp_path / "days", 100_000)
    days, found = files.find_days(tmp_path / "days", period="all", days=0)
    rows = pl.concat(pl.read_ipc(day.rows) for day in days)
    assert len(days) == preparation.FEWEST_DAYS
    assert not found["days_without_history"]
    assert abs(len(rows) - 100_000) < 40_000
    assert rows.select("request_id", "video_id").is_unique().all()
    assert size == rows.select(files.COLUMNS).estimated_size()


def test_growth_is_the_power_of_the_rows():
    rows = [{"rows": n, "seconds": 3e-6 * n**1.5} for n in (10**6, 3 * 10**6, 10**7)]
    assert abs(preparation.growth(rows) - 1.5) < 1e-9
