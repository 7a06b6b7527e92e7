"""Every way to hold a table gives the same arrays; damaged files are named."""

import gzip

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest

from dnr_jax.data.table.reader import find_files, locate, open_table
from tests.table_cases import examine, log, prepare, put


def text_log():
    """A log that every format can hold, with ids of text."""
    return log(
        item_id=pl.format("é-{}", "item_id"),
        u_city=pl.when(pl.col("user_id") > 2).then(pl.lit("東京")).otherwise(pl.lit("Oslo")),
        i_size=pl.col("item_id") % 3,
    )


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.splits, other.splits)
    assert one.spec == other.spec


def write_csv(frame, path, *, separator=",", bom=False, crlf=False):
    text = frame.write_csv(separator=separator)
    text = text.replace("\n", "\r\n") if crlf else text
    content = ("\ufeff" * bom + text).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_every_format_gives_the_same_arrays(tmp_path):
    frame = text_log()
    first = prepare(frame, tmp_path)
    frame.write_parquet(tmp_path / "log.parquet")
    frame.write_ipc(tmp_path / "log.feather")
    write_csv(frame, tmp_path / "log.csv", bom=True, crlf=True)
    write_csv(frame, tmp_path / "zipped.csv.gz")
    write_csv(frame, tmp_path / "tabs.tsv", separator="\t")
    write_csv(frame, tmp_path / "tabs.csv", separator="\t")
    write_csv(frame, tmp_path / "semicolons.csv.gz", separator=";")
    for path in sorted(tmp_path.glob("*.*")):
        assert_same(prepare(path, tmp_path / "out"), first)


def test_a_comma_in_the_first_line_is_what_separates(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text('item_id,"a;b;c",score\n1,2,3\n')
    assert list(open_table(path).types) == ["item_id", "a;b;c", "score"]
    path.write_text('item_id;"a, b";score\n1;2;"3\n4"\n')
    assert list(open_table(path).types) == ["item_id", "a, b", "score"]
    path.write_text("item_id\n1\n")
    assert list(open_table(path).types) == ["item_id"]


def test_files_with_different_separators_are_refused(tmp_path):
    write_csv(log(), tmp_path / "one.csv")
    write_csv(log(), tmp_path / "two.csv", separator=";")
    with pytest.raises(ValueError, match="columns are separated by ',' and ';': keep one"):
        open_table(tmp_path)


def test_every_kind_of_frame_gives_the_same_arrays(tmp_path):
    frame = text_log()
    first = prepare(frame, tmp_path)
    assert_same(prepare(frame.lazy(), tmp_path), first)
    assert_same(prepare(frame.to_arrow(), tmp_path), first)
    by_pandas = pd.DataFrame(frame.to_dict(as_series=False))  # labels and positions have NaN
    assert by_pandas["position"].dtype == float
    assert_same(prepare(by_pandas, tmp_path), first)


def test_the_order_of_rows_and_files_does_not_matter(tmp_path):
    frame = text_log()
    first = prepare(frame, tmp_path)
    mixed = frame.sample(fraction=1.0, shuffle=True, seed=1)
    assert_same(prepare(mixed, tmp_path), first)
    folder = tmp_path / "parts"
    for number in range(3):
        part = folder / f"part={number}"
        part.mkdir(parents=True)
        mixed[number::3].write_parquet(part / "rows.parquet")
    assert_same(prepare(folder, tmp_path), first)


def test_a_partition_is_a_column(tmp_path):
    frame = log()
    split = {"train": (0, 30), "valid": (30, 35), "test": (35, 40)}
    for name, (first, last) in split.items():
        (tmp_path / f"split={name}").mkdir()
        own = frame.filter(pl.col("request_id").is_between(first, last, closed="left"))
        own.write_parquet(tmp_path / f"split={name}" / "rows.parquet")
    seen = examine(tmp_path)
    assert seen.splits == "as the table says"
    assert seen.requests["split"].value_counts().sort("split")["count"].to_list() == [30, 5, 5]


def test_a_fault_is_located_in_its_file(tmp_path):
    for number, part in enumerate(
        (log(), put(log(request_id=pl.col("request_id") + 40), 9, score=float("nan")))
    ):
        part.write_parquet(tmp_path / f"{number}.parquet")
    with pytest.raises(ValueError, match=r"1\.parquet, row 10: score is nan"):
        examine(tmp_path)
    source = open_table(tmp_path)
    assert locate(source, 0).endswith("0.parquet, row 1")
    assert locate(source, 160).endswith("1.parquet, row 1")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"score": "0.9x"}, "row 3: score is '0.9x', expected a finite score"),
        ({"label": "yes"}, "row 3: label is 'yes', expected a finite label"),
        ({"timestamp": "yesterday"}, "row 3: timestamp is 'yesterday', expected a time"),
        ({"position": "third"}, "row 3: position is 'third', expected a whole number"),
        ({"score": "inf"}, "row 3: score is inf"),
    ],
)
def test_mixed_types_in_a_csv_column_name_the_row(tmp_path, change, expected):
    frame = put(log().cast(pl.String), 2, **change)
    path = write_csv(frame, tmp_path / "log.csv")
    with pytest.raises(ValueError, match=expected) as raised:
        examine(path)
    assert str(path) in str(raised.value)


def test_ids_keep_their_form(tmp_path):
    frame = log(item_id=pl.format("00{}", "item_id"))
    source = open_table(write_csv(frame, tmp_path / "log.csv"))
    assert source.types["item_id"] == pl.String  # 007 is not 7
    assert source.types["request_id"] == pl.Int64
    large = log(item_id=pl.col("item_id").cast(pl.UInt64) + 2**63)
    seen = examine(write_csv(large, tmp_path / "large.csv"))
    assert seen.table.frame.collect_schema()["item_id"] == pl.String
    assert examine(large).table.frame.collect_schema()["item_id"] == pl.String


@pytest.mark.parametrize(
    ("form", "unit"),
    [
        ("ints", "seconds"),
        ("floats", "seconds"),
        ("milliseconds", "milliseconds"),
        ("iso", "ISO"),
        ("zoned", "ISO"),
        ("datetime", "dates and times"),
        ("text", "seconds"),
    ],
)
def test_every_form_of_time_is_read_alike(tmp_path, form, unit):
    seconds = pl.col("timestamp")
    forms = {
        "ints": seconds,
        "floats": seconds.cast(pl.Float64),
        "milliseconds": seconds * 1000,
        "iso": pl.from_epoch(seconds).dt.strftime("%Y-%m-%d %H:%M:%S"),
        "zoned": pl.from_epoch(seconds + 7200).dt.strftime("%Y-%m-%dT%H:%M:%S+02:00"),
        "datetime": pl.from_epoch(seconds),
        "text": seconds.cast(pl.String),
    }
    frame = log(timestamp=forms[form])
    given = write_csv(frame, tmp_path / "log.csv") if form == "text" else frame
    seen = examine(given)
    assert seen.table.time_unit.startswith(unit)
    expected = examine(log()).requests["timestamp"]
    assert seen.requests["timestamp"].to_list() == expected.to_list()


def test_a_day_is_a_time():
    seen = examine(log(100, timestamp=pl.from_epoch("timestamp").dt.date()))
    assert seen.table.time_unit == "dates"
    days = seen.requests.group_by("split").agg(pl.col("timestamp").unique()).sort("split")
    counts = [len(day) for day in days["timestamp"]]
    assert sum(counts) == seen.requests["timestamp"].n_unique()  # a day is in one split only
    assert min(counts) > 0


def test_damaged_files_are_named(tmp_path):
    whole = tmp_path / "whole.parquet"
    log().write_parquet(whole)
    torn, empty = tmp_path / "torn" / "a.parquet", tmp_path / "empty.csv"
    torn.parent.mkdir()
    torn.write_bytes(whole.read_bytes()[:-20])
    empty.touch()
    with pytest.raises(ValueError, match=r"a\.parquet is not a complete Parquet .*write it again"):
        open_table(torn.parent)
    with pytest.raises(ValueError, match=r"empty\.csv is empty"):
        open_table(empty)
    middle = tmp_path / "middle.parquet"
    content = bytearray(whole.read_bytes())
    content[100:600] = bytes(500)
    middle.write_bytes(content)
    with pytest.raises(ValueError, match=r"middle\.parquet.*cannot be read"):
        examine(middle)


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        open_table(tmp_path / "nothing.parquet")
    with pytest.raises(FileNotFoundError, match=r"holds no table: .*\.parquet"):
        find_files(tmp_path)
    log().write_parquet(tmp_path / "a.parquet")
    write_csv(log(), tmp_path / "b.csv")
    with pytest.raises(ValueError, match="Parquet and CSV"):
        open_table(tmp_path)
    with pytest.raises(TypeError, match="a path or a frame"):
        open_table([1, 2])


def test_files_of_one_table_need_the_same_columns(tmp_path):
    log().write_parquet(tmp_path / "a.parquet")
    log(score=pl.lit("x")).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(
        ValueError, match=r"b\.parquet: column score is String, but in .*a\.parquet"
    ):
        open_table(tmp_path)


def test_hidden_files_and_markers_are_passed_over(tmp_path):
    log().write_parquet(tmp_path / "a.parquet")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part.parquet").touch()
    assert [p.name for p in find_files(tmp_path)[1]] == ["a.parquet"]


@pytest.mark.parametrize("name", ["__row__", "__file__"])
@pytest.mark.parametrize("form", ["csv", "parquet", "ipc", "memory"])
def test_a_column_with_a_name_of_ours_is_refused(tmp_path, name, form):
    table = log().with_columns(pl.lit(1).alias(name))
    path = tmp_path / f"log.{form}"
    if form != "memory":
        getattr(table, f"write_{form}")(path)
    with pytest.raises(ValueError, match=f"has a column '{name}', .*rename it"):
        open_table(table if form == "memory" else path)


QUOTED = "has a quote out of place: close each quote"


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'"1,2,3,4,5,6,7\n1,2,3,4,5,6,7\n', f"row 161 {QUOTED}"),
        (b'1,"2"x,3,4,5,6,7\n1,2,3,4,5,6,7\n', f"row 161 {QUOTED}"),
        (b'1,2"x,3,4,5,6,7\n1,2,3,4,5,6,7\n', f"row 161 {QUOTED}"),
        (b"1,2,3,4,5,6\n1,2,3,4,5,6,7\n", "row 161 has 6 values, the first line 7 names: write"),
        (b"1,2,3,4,5,6,7,8,9\n", "row 161 has 9 values, the first line 7 names: quote a value"),
        (b"1,2,Z\xfcrich,4,5,6,7\n", r"row 161 is not UTF-8 near b'1,2,Z\\xfcrich,4,5,': save"),
    ],
)
def test_the_row_at_which_a_csv_ends_to_be_one_is_named(tmp_path, name, line, said):
    path, content = tmp_path / name, log().write_csv().encode() + line
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    with pytest.raises(ValueError, match=rf"{name}, {said}"):
        examine(path)


def test_a_last_column_may_have_gaps_beside_very_long_values(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(f"a,b\n1,x\n{'1 ' * 100_000},\n2,\n")
    assert open_table(path).frame.collect()["b"].to_list() == ["x", None, None]


def test_a_torn_zipped_csv_is_named(tmp_path):
    path = write_csv(log(requests=4000), tmp_path / "log.csv.gz")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"log\.csv\.gz cannot be read: .*write it again"):
        examine(path)


def test_a_csv_of_a_header_alone_has_no_rows(tmp_path):
    path = write_csv(log().head(0), tmp_path / "log.csv")
    with pytest.raises(ValueError, match=r"log\.csv has no rows"):
        examine(path)
