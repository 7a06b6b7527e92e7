"""Bad input: one error that names place, column, value, expectation and cure, before any work."""

import polars as pl
import pytest

from tests.table_cases import examine, log, prepare, put

NAN, INF = float("nan"), float("inf")
CASES = {
    "huge score": (
        put(log(), 5, score=1e300),
        {},
        r"row 6: score is 1e\+300, expected a score between -1e\+38 and 1e\+38 \(1 such row\)",
    ),
    "nan score": (put(log(), 5, score=NAN), {}, r"row 6: score is nan, expected a finite score"),
    "infinite score": (put(log(), 5, score=INF), {}, r"row 6: score is inf"),
    "score out of range": (
        put(log(), 0, score=-0.5),
        {"score": "as_is"},
        r"row 1: score is -0\.5, expected a score in \[0, 1\].*minmax",
    ),
    "missing score": (put(log(), 7, score=None), {}, r"row 8: score is missing.*drop the row"),
    "nan label": (put(log(), 9, label=NAN), {}, r"row 10: label is nan.*Leave it empty"),
    "infinite label": (put(log(), 9, label=INF), {}, r"row 10: label is inf"),
    "negative label": (put(log(), 4, label=-1.0), {}, r"row 5: label is -1, expected .* 0 or more"),
    "label not shown": (
        put(log(), 3, label=1.0),
        {},
        r"row 4: label is 1, expected no feedback on a candidate without position",
    ),
    "label not exposed": (
        put(log(exposed=pl.col("position").is_not_null()), 1, exposed=False).drop("position"),
        {},
        r"row 2: label is 1, expected no feedback on a candidate that exposed says",
    ),
    "position from 0": (put(log(), 0, position=0), {}, r"row 1: position is 0.*Add 1"),
    "two at a position": (
        put(log(), 1, position=1),
        {},
        r"row 1 and .*row 2: request 0 has position 1, expected one item at a position",
    ),
    "duplicate": (
        put(log(), 2, item_id=100),
        {},
        r"row 1 and .*row 3: request 0 has item_id 100, expected an item once",
    ),
    "two users": (put(log(), 2, user_id=3), {}, r"request 0 has user_id 0 and 3, expected one"),
    "two splits": (
        put(log(split=pl.lit("train")), 2, split="test"),
        {},
        r"row 1 and .*row 3: request 0 has split 'train' and 'test'",
    ),
    "unknown split": (
        put(log(split=pl.lit("train")), 2, split="later"),
        {},
        r"split is 'later'.*one of train",
    ),
    "no request": (put(log(), 2, request_id=None), {}, r"row 3: request_id is missing"),
    "no item": (put(log(), 2, item_id=None), {}, r"row 3: item_id is missing"),
    "no time": (put(log(), 2, timestamp=None), {}, r"row 3: timestamp is missing"),
    "negative time": (put(log(), 2, timestamp=-5), {}, r"row 3: timestamp is -5"),
    "half a request": (
        log(request_id=pl.col("request_id") + 0.5),
        {},
        r"row 1: request_id is 0\.5, expected a whole number",
    ),
    "negative weight": (log(weight=pl.lit(-1.0)), {}, r"row 1: weight is -1"),
    "propensity 0": (log(propensity=pl.lit(0.0)), {}, r"row 1: propensity is 0, expected a prob"),
    "features that differ": (
        put(log(u_age=pl.lit(3)), 1, u_age=4),
        {},
        r"request 0 has u_age 3 and 4, expected one value in all rows",
    ),
    "times that are no history's": (
        log(history=pl.lit([101, 102]), history_time=pl.concat_list(pl.col("timestamp") - 9)),
        {},
        r"row 1: history_time is \[1699999991\], expected as many times as history has items",
    ),
    "all labels equal": (
        log(label=pl.lit(1.0), position=pl.lit(None, pl.Int64)).drop("position"),
        {},
        r"label is 1 in every row",
    ),
    "no label at all": (log(label=pl.lit(None, pl.Float64)), {}, r"label is empty in every row"),
    "nothing positive enough": (
        log(label=pl.col("label") * 5),
        {"positive_from": 6.0},
        r"positive_from is 6, but label goes from 0 to 5",
    ),
    "grades beyond 1": (log(label=pl.col("label") * 5), {"grades": "as_is"}, r"grades is as_is"),
    "one item": (log(candidates=4).filter(pl.col("position") == 2), {}, r"label is 1 in every"),
    "single candidates": (
        log().filter(pl.col("position") == 1 + pl.col("request_id") % 2),
        {},
        r"no request has two candidates",
    ),
    "no positive in validation": (
        log().with_columns(
            label=pl.when(pl.col("request_id").is_between(30, 36)).then(0.0).otherwise("label")
        ),
        {},
        r"no request with a positive label in valid",
    ),
    "no rows": (log().head(0), {}, r"has no rows"),
    "no request column": (log().drop("request_id"), {}, r"no column request_id.*its columns are"),
    "no item column": (log().drop("item_id"), {}, r"no column item_id"),
    "no label column": (
        log().drop("label"),
        {},
        r"has no label: name the column, as in --columns label=YOURS \(in a config, config\.data\.",
    ),
    "score of text": (
        log(score=pl.lit("high")),
        {},
        r"row 1: score is 'high', expected a finite score",
    ),
    "score of lists": (log(score=pl.concat_list("score")), {}, r"score \(score\) is List"),
    "two names": (
        log(qid=pl.lit(1), query_id=pl.lit(2)).drop("request_id"),
        {},
        r"qid, query_id could each be request_id",
    ),
    "unknown flag": (log(), {"columns": "item=x"}, r"no column 'item'.*item_id"),
    "unknown column": (log(), {"columns": "item_id=sku"}, r"no column 'sku'"),
    "split by nothing": (log().drop("timestamp"), {"split_by": "time"}, r"no column timestamp"),
    "mixed units": (
        put(log(), 3, timestamp=1_700_000_000_000),
        {},
        r"timestamp holds times from 1700000000 \(seconds\) to 1700000000000 \(milliseconds\)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_clear_error(name):
    frame, knobs, expected = CASES[name]
    with pytest.raises(ValueError, match=expected):
        examine(frame, **knobs)


def test_a_bad_table_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="score is nan"):
        prepare(put(log(), 5, score=NAN), tmp_path)
    assert not [p for p in (tmp_path / "cache").glob("*") if not p.name.endswith(".lock")]


def test_how_often_a_fault_occurs_is_said():
    with pytest.raises(ValueError, match=r"row 3: .*\(40 such rows\)"):
        examine(log(score=pl.when(pl.col("position") == 3).then(NAN).otherwise("score")))


def test_a_user_or_a_first_stage_may_be_absent():
    seen = examine(log().drop("user_id", "score", "timestamp", "position"))
    assert "user_id" not in seen.requests.columns
    assert seen.splits.startswith("by a hash of the request")
