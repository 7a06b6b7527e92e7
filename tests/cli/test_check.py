"""`dnr-jax check`: what it says of good and of bad tables."""

import numpy as np
import polars as pl
import pytest
from table_cases import log, put


@pytest.fixture
def logs(tmp_path):
    """Write a frame and return its path."""

    def write(frame, name="log.parquet"):
        path = tmp_path / name
        frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)
        return path

    return write


def test_a_good_table_is_described_for_people(call, logs):
    code, out, _ = call("check", logs(log(requests=400, users=50)), "--k", "3")
    assert code == 0
    for words in (
        "columns: request_id = request_id (Int64)",
        "1600 rows, 400 requests of 4 to 4 candidates",
        "splits: by time",
        "first stage: N@3 0.6309, H@3 0.3333, AUC 0.5000",
        "chance: N@3",
        "audit of protocol logged",
    ):
        assert words in out
    [test] = [line.split() for line in out.splitlines() if line.startswith(" test ")]
    assert test[:5] == ["test", "40", "160", "120", "40"]


def test_without_scores_there_is_no_first_stage_to_measure(call, logs):
    code, out, _ = call("check", logs(log(requests=400, users=50).drop("score")), "--k", "3")
    assert code == 0
    assert "no score and no rank" in out
    assert "\n  chance: N@3" in out
    assert "\n  first stage" not in out
    assert "WARN  scores test:          no first stage: all candidates have the same score" in out
    assert "retriever" not in out


def test_side_tables_are_joined(call, logs):
    path = logs(log())
    items = logs(log().select("item_id").unique().with_columns(brand=pl.lit("b")), "items.csv")
    users = logs(log().select("user_id").unique().with_columns(city=pl.lit("c")), "users.csv")
    code, out, _ = call("check", path, "--quick", "--item-file", items, "--user-file", users)
    assert code == 0
    assert "features: u_city, i_brand" in out


def test_quick_leaves_out_what_takes_long(call, logs):
    code, out, _ = call("check", logs(log(), "log.csv"), "--quick")
    assert code == 0
    assert "160 rows, 40 requests" in out
    # Half of the requests at 0 and half at 1 are as far apart as a metric can be.
    assert f"can be as wide as ±{1.96 * np.std([0, 1]) / np.sqrt(4):.2f} (±0.10 with 100" in out
    assert "WARN  valid: epochs and models are chosen on 4 requests with a positive" in out
    assert "WARN  test: models are compared on 4 requests with a positive" in out
    assert "audit" not in out
    assert "histories" not in out
    row, user = pl.int_range(pl.len()), pl.col("user_id")
    strange = log(
        timestamp=pl.col("timestamp") + row % 4,
        user_id=pl.when(pl.col("request_id") > 1).then(user),
    )
    _, out, _ = call("check", logs(strange), "--quick")
    assert "WARN  40 requests have rows of several times: the earliest counts" in out
    assert "WARN  2 requests have no user" in out


def test_a_leak_is_an_exit_status(call, logs):
    inverted = log(requests=400, users=50, score=-pl.col("label").fill_null(0.0))
    code, out, _ = call("check", logs(inverted), "--k", "3")
    assert code == 1
    assert "\nLEAK " in out


def test_columns_are_named_by_options_and_by_a_schema_file(call, logs, tmp_path):
    path = logs(log().rename({"request_id": "session", "score": "bm25"}))
    columns = "request_id=session,score=bm25"
    code, out, _ = call("check", path, "--quick", "--columns", columns)
    assert code == 0
    assert "score = bm25 (Float64)" in out
    (tmp_path / "schema.toml").write_text('[columns]\nrequest_id = "session"\nscore = "bm25"\n')
    assert call("check", path, "--quick", "--schema", tmp_path / "schema.toml")[1] == out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "split_by"], "--set is 'split_by': write KNOB=VALUE, as in split_by=user"),
        (["--set", "split_by=usr"], "data.split_by is 'usr': it must be one of auto, column"),
        (["--set", "valid_share=many"], "data.valid_share is 'many': it must be of type float"),
        (["--set", "min_cuont=2"], "there is no knob 'min_cuont'; did you mean 'min_count'"),
        (["--columns", "item_id=itm"], "there is no column 'itm'; did you mean 'item_id'"),
        (["--k", "60"], "--size is 50: choose at least as many as --k, 60"),
        (["--schema", "none.toml"], "schema is none.toml, but there is no such file"),
    ],
)
def test_a_wrong_option_is_one_line(call, logs, arguments, said):
    code, out, err = call("check", logs(log()), *arguments)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_fault_is_named_by_row_and_column(call, logs):
    code, _, err = call("check", logs(put(log(), 6, score=float("nan"))), "--quick")
    assert code == 1
    assert "log.parquet, row 7: score is nan, expected a finite score (1 such row)" in err
    code, _, err = call("check", "nowhere.parquet")
    assert code == 1
    assert err == "error: there is no file or folder nowhere.parquet\n"


def test_numbers_of_set_reach_the_settings(call, logs):
    path = logs(log(label=pl.col("label") * 3))
    code, out, _ = call("check", path, "--quick", "--set", "positive_from=3")
    assert code == 0
    assert "labels: 1 from a label of 3 on, else 0" in out
