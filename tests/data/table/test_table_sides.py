"""Side tables describe users and items by their ids."""

import numpy as np
import polars as pl
import pytest

from dnr_jax.data.table import inputs
from dnr_jax.data.table.settings import TableSettings
from tests.table_cases import examine, log, prepare


@pytest.fixture
def sides(tmp_path):
    """Write side tables; a column may be changed."""

    def write(**changed):
        items = pl.DataFrame(
            {"item_id": range(100, 110), "brand": [f"b{n % 3}" for n in range(10)]}
        )
        users = pl.DataFrame(
            {"userId": [str(n) for n in range(5)], "u_age": [20.0 + n for n in range(5)]}
        )
        items.with_columns(**changed).write_csv(tmp_path / "items.csv")
        users.write_parquet(tmp_path / "users.parquet")
        return {
            "item_file": str(tmp_path / "items.csv"),
            "user_file": str(tmp_path / "users.parquet"),
        }

    return write


def test_side_tables_are_joined_by_id(tmp_path, sides):
    frame = log()
    brand = pl.format("b{}", (pl.col("item_id") - 100) % 3)
    whole = frame.with_columns(
        u_age=20.0 + pl.col("user_id"),
        i_brand=pl.when(pl.col("item_id") < 110).then(brand),  # the side table lacks item 110
    )
    joined, expected = prepare(frame, tmp_path, **sides()), prepare(whole, tmp_path)
    assert joined.spec == expected.spec
    assert joined.spec.item == ("item_id", "i_brand")
    assert joined.spec.numbers == ("u_age",)
    for name, split in joined.splits.items():
        own = expected.splits[name].batch.request
        np.testing.assert_array_equal(split.batch.request.candidates, own.candidates)
        np.testing.assert_array_equal(split.batch.request.numbers, own.numbers)


def test_the_fingerprint_knows_side_tables(tmp_path, sides):
    log().write_parquet(tmp_path / "log.parquet")
    files = inputs(tmp_path / "log.parquet", TableSettings(**sides()))
    assert [file.name for file in files] == ["log.parquet", "users.parquet", "items.csv"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"item_id": pl.lit(100)}, r"items\.csv, row 1: item_id is '100', which other rows have"),
        ({"item_id": pl.lit(None)}, r"items\.csv, row 1: item_id is missing"),
        ({"i_price": pl.lit(1)}, r"both have i_price: keep it in one of them"),
    ],
)
def test_a_bad_side_table_is_named(sides, changed, expected):
    frame = log(i_price=pl.lit(1.0))
    with pytest.raises(ValueError, match=expected):
        examine(frame, **sides(**changed))


@pytest.mark.parametrize(("shift", "warned"), [(0, False), (1000, True)])
def test_a_side_table_of_other_ids_is_told(sides, caplog, shift, warned):
    examine(log(), **sides(item_id=pl.col("item_id") + shift))
    assert ("write ids in the same way" in caplog.text) is warned


def test_a_side_table_needs_ids_on_both_sides(tmp_path, sides):
    with pytest.raises(ValueError, match="the table has no column user_id"):
        examine(log().drop("user_id"), **sides())
    pl.DataFrame({"brand": [1]}).write_csv(tmp_path / "bare.csv")
    with pytest.raises(ValueError, match=r"bare\.csv has no column item_id; its columns are brand"):
        examine(log(), item_file=str(tmp_path / "bare.csv"))
