"""Rows of a table some at a time: all of them, in order, with each request's lists once."""

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dnr_jax.data.table import pieces, reader

LENGTHS = [1, 5, 2, 9, 3, 7, 4, 6]


@pytest.fixture
def table():
    random = np.random.default_rng(0)
    rows = sum(LENGTHS)
    past = [None if random.random() < 0.4 else [n, n + 1] for n in range(rows)]
    return pl.DataFrame(
        {
            "q": np.repeat([f"q{n}" for n in range(len(LENGTHS))], LENGTHS),
            "item": np.arange(rows),
            "past": past,
        }
    )


def spans(lengths):
    """Yield the first row and number of rows of two requests at a time."""
    ends = np.cumsum([0, *lengths])
    return [(int(a), int(b - a)) for a, b in zip(ends[:-2:2], ends[2::2], strict=True)]


def write(table, folder, kind):
    half = len(table) // 2  # within a request
    folder.mkdir()
    for number, part in enumerate((table[:half], table[half:])):
        if kind == "parquet":
            part.write_parquet(folder / f"{number}.parquet", row_group_size=8)
        elif kind == "arrow":
            part.write_ipc(folder / f"{number}.arrow")
        else:
            (folder / f"day={number}").mkdir()
            part.write_parquet(folder / f"day={number}" / "0.parquet")
    return reader.open_table(folder)


@pytest.mark.parametrize("at_once", [1, 3, 100])
@pytest.mark.parametrize("kind", ["parquet", "arrow", "folders"])
@pytest.mark.parametrize("skipped", [0, 1])
def test_pieces_hold_all_rows_and_each_request_s_first_list(
    table, tmp_path, monkeypatch, kind, at_once, skipped
):
    monkeypatch.setattr(pieces, "ROWS", at_once)
    source = write(table, tmp_path / "table", kind)
    wanted = spans(LENGTHS)[skipped:]
    names = ["q", "past", "item", *(["day"] if kind == "folders" else [])]
    found = list(pieces.read(source, names, wanted, "q", ["past"]))
    for (first, rows), piece in zip(wanted, found, strict=True):
        expected = table[first : first + rows]
        assert piece["item"].equals(expected["item"])
        assert piece[reader.ROW].to_list() == list(range(first, first + rows))
        of_each = pl.col("past").drop_nulls().first()
        one, other = (t.group_by("q", maintain_order=True).agg(of_each) for t in (piece, expected))
        assert one.equals(other)


def test_a_repeated_list_is_left_out(table, tmp_path):
    source = write(table.with_columns(past=pl.lit([1, 2])), tmp_path / "table", "parquet")
    [whole] = pieces.read(source, ["q", "past"], [(0, len(table))], "q", ["past"])
    assert whole["past"].is_not_null().sum() <= len(LENGTHS) + len(table) // 8 + 1
    assert len(whole) == len(table)


def test_files_of_several_writers_are_one_table(table, tmp_path):
    """In another order of columns, with categories, with lists of 32-bit offsets."""
    folder = tmp_path / "table"
    folder.mkdir()
    table[:9].cast({"q": pl.Categorical}).write_parquet(folder / "0.parquet")
    arrow = table[9:].select("past", "item", "q").cast({"q": pl.Categorical}).to_arrow()
    kinds = {"past": pa.list_(pa.int64()), "q": pa.dictionary(pa.int8(), pa.string())}
    schema = pa.schema([f.with_type(kinds.get(f.name, f.type)) for f in arrow.schema])
    pq.write_table(arrow.cast(schema), folder / "1.parquet")
    source = reader.open_table(folder)
    [whole] = pieces.read(source, ["q", "past", "item"], [(0, len(table))], "q", ["past"])
    assert whole["item"].equals(table["item"])
    assert whole["q"].cast(pl.String).equals(table["q"])
    assert whole["past"].drop_nulls()[0].equals(table["past"].drop_nulls()[0])


def test_a_damaged_file_is_named(table, tmp_path):
    source = write(table, tmp_path / "table", "parquet")
    content = bytearray(source.files[1].read_bytes())
    content[4:200] = b"\xff" * 196
    source.files[1].write_bytes(content)
    with pytest.raises(ValueError, match=r"one of its neighbours cannot be read: .*write it again"):
        list(pieces.read(source, ["q", "past"], spans(LENGTHS), "q", ["past"]))
