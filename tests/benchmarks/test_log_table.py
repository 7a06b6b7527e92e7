"""Smoke mode of the benchmark of log tables, and what its table holds."""

import json

from benchmarks import harness, log_table


def test_a_table_is_read_in_a_process_of_its_own(tmp_path):
    path = tmp_path / "rows.json"
    log_table.main(harness.parser("").parse_args(["--smoke", "--json", str(path)]))
    (row,) = json.loads(path.read_text())["rows"]
    assert row["rows"] == log_table.SMOKE_ROWS
    assert row["rows/s"] > 0
    assert row["peak MiB"] > 0


def test_no_request_holds_an_item_twice():
    rows = log_table.make_rows(0, 5000)
    assert rows.select("request_id", "item_id").is_unique().all()
