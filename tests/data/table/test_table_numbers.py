"""Numeric and vector columns: scaled by training, missing told apart, read by models, encoded."""

import numpy as np
import polars as pl
import pytest

from dnr_jax.data.table import scales
from dnr_jax.data.table.requests import encode
from dnr_jax.data.table.scales import Scale
from tests.table_cases import examine, log, prepare


def fitted(values):
    return scales._fitted(pl.Series("x", values))


def numbered(**columns):
    """A log with a price, a temperature and a two-number vector of each item."""
    item = pl.col("item_id")
    return log(
        i_price=pl.when(item % 4 == 0).then(None).otherwise(item.cast(pl.Float64)),
        i_text=pl.concat_list(item.cast(pl.Float64), -2.0 * item),
        u_age=20.0 + pl.col("user_id"),
        **columns,
    )


def test_a_number_becomes_its_place_among_those_of_training():
    scale = fitted([float(n) for n in range(101)])
    raw = pl.Series("x", [-5.0, 0.0, 25.0, 50.0, 100.0, 1e9])
    np.testing.assert_allclose(scale.scale(raw), [-0.99, -0.99, -0.495, 0, 0.99, 0.99], atol=0.01)
    assert scale.width == 1


def test_outliers_and_ties_do_no_harm():
    scale = fitted([0.0] * 90 + [1.0] * 9 + [1e12])
    values = scale.scale(pl.Series("x", [0.0, 1.0, 1e12])).to_numpy()
    np.testing.assert_allclose(values, [-0.1, 0.89, 0.99], atol=1e-6)
    np.testing.assert_array_equal(fitted([3.0, 3.0]).scale(pl.Series("x", [3.0, 9.0])), [0, 0])


def test_a_missing_number_is_told_apart_from_0():
    scale = fitted([-1.0, None, 0.0, 1.0])
    raw = pl.Series("x", [None, 0.0])
    np.testing.assert_array_equal(scale.stack(scale.scale(raw)), [[0, 1], [0, 0]])
    assert scales.names({"x": scale}) == ("x", "x is missing")
    complete = fitted([-1.0, 0.0, 1.0])  # training has none: the middle stands for it
    np.testing.assert_array_equal(complete.stack(complete.scale(raw)), [[0], [0]])


def test_a_column_without_any_value_is_0():
    scale = fitted(pl.Series("x", [None, None], dtype=pl.Float64))
    assert scale.stack(scale.scale(pl.Series("x", [2.0, None]))).tolist() == [[0, 0], [0, 1]]


def test_vectors_have_mean_0_and_spread_1():
    raw = pl.Series("x", [[1.0, 5.0], [3.0, 5.0], None], dtype=pl.List(pl.Float32))
    scale = fitted(raw)
    assert scale.stack(scale.scale(raw)).tolist() == [[-1, 0, 0], [1, 0, 0], [0, 0, 1]]


def test_scales_are_stored_as_they_are_used():
    content = {"a": fitted(np.random.default_rng(0).lognormal(size=500)), "b": Scale(mean=(0.5,))}
    assert scales.read(scales.plain(content)) == content


def test_arrays_hold_scaled_numbers(tmp_path):
    prepared = prepare(numbered(), tmp_path)
    assert prepared.spec.item_numbers == ("i_price", "i_price is missing", "i_text", "i_text")
    assert prepared.spec.numbers == ("u_age",)
    assert prepared.spec.item == ("item_id",)
    for split in prepared.splits.values():
        request = split.batch.request
        where = np.asarray(request.where)
        keys = np.array([0, 0, *prepared.encoders.vocabularies["item_id"].keys])
        item = keys[request.candidates[..., 0]]
        np.testing.assert_array_equal(request.item_numbers[..., 1], where & (item % 4 == 0))
        assert not request.item_numbers[~where].any()
        order = np.argsort(item[where])
        assert (np.diff(request.item_numbers[where][order][:, 2]) >= 0).all()
        assert (np.diff(request.item_numbers[where][order][:, 3]) <= 0).all()
        assert np.abs(request.item_numbers).max() < 3
        assert request.numbers.dtype == request.item_numbers.dtype == np.float32
    train = prepared.splits["train"].batch.request
    values = train.item_numbers[..., 2:][train.where]
    np.testing.assert_allclose(values.std(axis=0), 1, atol=0.05)


def test_an_int_is_an_id_unless_it_is_said_to_be_a_number(tmp_path):
    schema = tmp_path / "schema.toml"
    schema.write_text('[features]\ni_year = "numeric"\n')
    frame = log(i_year=1990 + pl.col("item_id") % 5)
    assert prepare(frame, tmp_path).spec.item == ("item_id", "i_year")
    prepared = prepare(frame, tmp_path, schema=str(schema))
    assert prepared.spec.item_numbers == ("i_year",)
    assert prepared.spec.item == ("item_id",)


def test_raw_requests_are_scaled_as_the_table_was(tmp_path):
    frame = numbered()
    prepared = prepare(frame, tmp_path)
    split = prepared.splits["test"]
    own = frame.filter(pl.col("request_id") == split.request_id[0])
    raw = {
        "user_id": own["user_id"][0],
        "u_age": own["u_age"][0],
        "items": own.select("item_id", "i_price", "i_text").to_dicts(),
    }
    encoded, stored = encode(prepared.encoders, [raw]).request, split.batch.request
    np.testing.assert_array_equal(encoded.numbers, stored.numbers[:1])

    def rows(request):
        parts = [request.candidates[0], request.item_numbers[0]]
        return sorted(np.concatenate(parts, axis=1).tolist())

    assert rows(encoded) == rows(stored)
    for bad in ({"i_price": "1"}, {"i_text": [1.0]}, {"i_price": float("inf")}):
        with pytest.raises(ValueError, match="request 0: item 0: i_"):
            encode(prepared.encoders, [{"items": [{"item_id": 1, **bad}]}])


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"i_price": pl.lit(float("inf"))}, "row 1: i_price is inf, expected a finite number"),
        (
            {"i_text": pl.concat_list(pl.lit(1.0), pl.lit(float("nan")))},
            r"row 1: i_text is \[1.0, nan\], expected a list of finite numbers",
        ),
        (
            {"i_text": pl.when(pl.col("position") == 2).then([1.0]).otherwise([1.0, 2.0])},
            r"row 2: i_text is \[1.0\], expected a list as long as the longest",
        ),
        ({"u_age": pl.col("score")}, "request 0 has u_age .* expected one value in all rows"),
    ],
)
def test_bad_numbers_are_named(columns, expected):
    with pytest.raises(ValueError, match=expected):
        examine(log(**columns))


def test_nan_is_a_missing_number(tmp_path):
    price = pl.col("item_id").cast(pl.Float64)
    odd = pl.col("item_id") % 2 == 1
    by_nan = prepare(log(i_x=pl.when(odd).then(float("nan")).otherwise(price)), tmp_path)
    by_null = prepare(log(i_x=pl.when(odd).then(None).otherwise(price)), tmp_path)
    for name in by_nan.splits:
        numbers = (p.splits[name].batch.request.item_numbers for p in (by_nan, by_null))
        np.testing.assert_array_equal(*numbers)


def test_a_number_by_log_lies_on_a_log_scale_between_the_ends_of_training():
    scale = scales._fitted(pl.Series("x", [0.0, 3.0, 1e6, None]), log=True)
    raw = np.array([0.0, 1.0, 10.0, 1e3, 5e4, 1e6])
    exact = 2 * np.log1p(raw) / np.log1p(1e6) - 1
    np.testing.assert_allclose(scale.scale(pl.Series("x", raw)), exact, atol=2e-3)
    outside = scale.scale(pl.Series("x", [-7.0, 1e12, None]))
    assert outside.to_list() == [-1.0, 1.0, None]
    assert scale.missing
    both = scales._fitted(pl.Series("x", [-99.0, 99.0]), log=True)
    middle = both.scale(pl.Series("x", [-99.0, -9.0, 0.0, 9.0, 99.0]))
    np.testing.assert_allclose(middle, [-1, -0.5, 0, 0.5, 1], atol=2e-3)
    assert scales._fitted(pl.Series("x", [5.0, 5.0]), log=True).scale(pl.Series([7.0]))[0] == 0


def test_a_schema_file_asks_for_the_log_and_it_is_said(tmp_path):
    path = tmp_path / "schema.toml"
    path.write_text('[features]\ni_price = "log"\n')
    found = prepare(numbered(), tmp_path, schema=str(path))
    assert found.report["schema"]["features"]["i_price"] == "item, numeric (Float64), by log"
    assert "numbers by log: i_price" in found.report["findings"]
    scale = scales.read(found.encoders.transforms["item_numbers"])["i_price"]
    assert np.ptp(np.diff(np.log1p(scale.knots))) < 1e-6
    path.write_text('[features]\ni_text = "log vector"\n')
    with pytest.raises(ValueError, match="i_text is vector, but only a number has a log"):
        examine(numbered(), schema=str(path))


def test_a_schema_file_may_be_yaml(tmp_path):
    toml, yaml = tmp_path / "schema.toml", tmp_path / "schema.yml"
    toml.write_text(
        'ignore = ["u_age"]\n[columns]\nscore = "bm25"\n[features]\ni_price = "log"\n'
        "[labels]\nlabel = 2\n"
    )
    yaml.write_text(
        "ignore: [u_age]\ncolumns:\n  score: bm25\nfeatures: {i_price: log}\nlabels: {label: 2}\n"
    )
    frame = numbered().rename({"score": "bm25"})
    one, other = (examine(frame, schema=str(path)) for path in (toml, yaml))
    assert one.table.schema == other.table.schema
    yaml.write_text("columns: [")
    with pytest.raises(ValueError, match=r"schema\.yml is not YAML: while parsing"):
        examine(frame, schema=str(yaml))
    yaml.write_text("just text")
    with pytest.raises(ValueError, match=r"schema\.yml holds no sections"):
        examine(frame, schema=str(yaml))
