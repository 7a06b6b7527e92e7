"""A log table is checked before any training: one report, nothing left behind."""

import json

import pytest

from dnr_jax.data.settings import Shape
from dnr_jax.data.table import simulator
from dnr_jax.data.table.settings import TableSettings, TableSimulation
from dnr_jax.evaluation.log_check import check_log

FRAME = simulator.table(TableSimulation(requests=400, users=40))


def test_a_report_says_what_was_understood_and_how_good_the_first_stage_is(tmp_path):
    found = check_log(FRAME, TableSettings(history=5), Shape(20, 6))
    text = str(found)
    for part in (
        "columns: request_id = request_id (Int64)",
        "splits: by time",
        "train       320 ",
        "items that training lacks, 0.0% of the requests have a new user",
        "audit of protocol logged",
        "retriever order: N@6 = ",
    ):
        assert part in text
    json.dumps(found._asdict())


def test_a_table_without_a_first_stage_is_warned_of():
    found = check_log(FRAME.drop("score"), TableSettings(), Shape(20, 6))
    assert "WARN  no score and no rank" in str(found)


def test_a_faulty_table_is_refused():
    with pytest.raises(ValueError, match="no column item_id"):
        check_log(FRAME.drop("item_id"), TableSettings(), Shape(20, 6))
