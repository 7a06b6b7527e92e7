"""What is wrong with a table stops `dnr-jax train` in one line, before anything is written."""

import numpy as np
import polars as pl
import pytest
from linear_reranker import LINEAR
from table_cases import log, put

import dnr_jax
from dnr_jax.rerankers import RERANKERS

NAN = float("nan")


def parquet(frame):
    def write(path):
        frame.write_parquet(path.with_suffix(".parquet"))
        return path.with_suffix(".parquet")

    return write


def csv(text):
    def write(path):
        path.with_suffix(".csv").write_bytes(text)
        return path.with_suffix(".csv")

    return write


def torn(path):
    whole = parquet(log())(path)
    whole.write_bytes(whole.read_bytes()[:-7])
    return whole


TEXT = log().write_csv().encode()
CASES = {
    "absent column": (parquet(log().drop("item_id")), "has no column item_id"),
    "absent label": (parquet(log().drop("label")), "has no label: name the column"),
    "wrong type": (parquet(log(score=pl.concat_list("score"))), "column score (score) is List"),
    "nan score": (parquet(put(log(), 5, score=NAN)), "row 6: score is nan, expected a finite"),
    "infinite label": (parquet(put(log(), 9, label=np.inf)), "row 10: label is inf, expected"),
    "negative label": (parquet(put(log(), 4, label=-1.0)), "row 5: label is -1, expected a label"),
    "duplicate": (parquet(put(log(), 2, item_id=100)), "row 3: request 0 has item_id 100, exp"),
    "a request in two splits": (
        parquet(put(log(split=pl.lit("train")), 2, split="test")),
        "row 3: request 0 has split 'train' and 'test', expected one value",
    ),
    "label without exposure": (parquet(put(log(), 3, label=1.0)), "row 4: label is 1, expected no"),
    "all labels equal": (
        parquet(log(label=pl.lit(1.0)).drop("position")),
        "label is 1 in every row that has one: log candidates of both kinds",
    ),
    "no positives in validation": (
        parquet(log(label=pl.col("label") * ~pl.col("request_id").is_between(30, 36))),
        "no request with a positive label in valid",
    ),
    "one item": (parquet(log().filter(pl.col("position") == 2)), "label is 1 in every row"),
    "empty file": (csv(b""), "is empty (0 bytes): write it again, or remove it"),
    "header alone": (csv(TEXT.split(b"\n")[0] + b"\n"), "has no rows: it needs one row"),
    "torn Parquet": (torn, "is not a complete Parquet file: it begins with b'PAR1' and ends with"),
    "mixed types": (
        csv(TEXT.replace(b",0.9,", b",high,", 1)),
        "row 2: score is 'high', expected a finite score (1 such row)",
    ),
    "uneven lines": (
        csv(TEXT + b"1,2,3,4,5,6,7,8,9\n"),
        f"row {len(log()) + 1} has 9 values, the first line {len(log().columns)} names",
    ),
    "Latin-1": (csv(TEXT + b"1,2,Z\xfcrich,4,5,6,7\n"), f"row {len(log()) + 1} is not UTF-8"),
    "UTF-16": (csv(TEXT.decode().encode("utf-16")), "is UTF-16, as its first bytes say: save it"),
    "a name twice": (csv(TEXT.replace(b"position", b"score", 1)), "has 2 columns 'score': rename"),
    "CR alone": (csv(TEXT.replace(b"\n", b"\r")), "lines that end in CR alone: save it with LF or"),
    "UTF-16 without its mark": (csv(TEXT.decode().encode("utf-16-le")), "is UTF-16, as its first"),
    "a Latin-1 name": (
        csv(TEXT.replace(b"position", b"pl\xe4ce", 1)),
        "is not UTF-8: save the file",
    ),
    "cut off": (csv(TEXT[:-12]), "was cut off; write it again"),
    "an empty id": (
        parquet(put(log(item_id=pl.col("item_id").cast(pl.String)), 3, item_id=" ")),
        "row 4: item_id is ' ', expected an id (1 such row). Every row needs one",
    ),
    "a far time": (
        parquet(log(timestamp=pl.col("timestamp") + 90_000_000_000)),
        "expected a time before 2200, in seconds since 1970",
    ),
    "times as text of digits": (
        parquet(log(timestamp=pl.col("timestamp").cast(pl.String))),
        "expected a time in ISO form, as the column is text",
    ),
    "no table": (lambda path: path, "there is no file or folder"),
}


@pytest.fixture
def train(call, tmp_path, monkeypatch):
    monkeypatch.setitem(RERANKERS, "linear", LINEAR)

    def run(table, *more):
        knobs = ("--k", 3, "--epochs", 1, "--seeds", 1, "--set", "reranker.name=linear")
        where = ("--out", tmp_path / "model", "--cache", tmp_path / "cache")
        return call("train", table, *where, *knobs, *more)

    return run


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_one_line_and_nothing_is_written(train, tmp_path, name):
    write, expected = CASES[name]
    path = write(tmp_path / "log")
    code, out, err = train(path)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert expected in err
    assert err.count("\n") == 1
    assert {p.name for p in tmp_path.iterdir()} <= {path.name, "cache"}
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


@pytest.mark.usefixtures("quick")
def test_a_strange_but_sound_table_trains(train, tmp_path):
    """A byte-order mark, CRLF, ids of other alphabets and beyond int64, one user alone."""
    frame = log().with_columns(
        user_id=pl.lit("Ωμέγα"),
        item_id=pl.format("9999999999999999999{}", pl.col("item_id")),
        request_id=pl.format("запрос {}", "request_id"),
    )
    text = b"\xef\xbb\xbf" + frame.write_csv().replace("\n", "\r\n").encode()
    code, _, err = train(csv(text)(tmp_path / "log"), "--model", "score")
    assert code == 0, err
    model = dnr_jax.load(tmp_path / "model")
    assert model.encoders.vocabularies["user_id"].keys.tolist() == ["Ωμέγα"]
    ranked = model.rank(frame.drop("label", "position"))
    assert set(ranked["item_id"]) == set(frame["item_id"])
    assert set(ranked["request_id"]) == set(frame["request_id"])
