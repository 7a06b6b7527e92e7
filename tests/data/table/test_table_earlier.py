"""Newer logs for an earlier model: known values, scales and layout stay, new values are added."""

import numpy as np
import polars as pl
import pytest
from table_cases import log, prepare

from dnr_jax.data import encoders
from dnr_jax.data.encoders import KNOWN, UNKNOWN

EXTRA = {
    "i_price": pl.col("item_id") * 1.5,
    "c_page": pl.lit("home"),
    "i_tags": pl.concat_list(pl.col("item_id") % 3, pl.col("item_id") % 2),
}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """The folder of the encoders of a first log, and what was prepared with them."""
    folder = tmp_path_factory.mktemp("earlier")
    found = prepare(log(**EXTRA), folder, size=6, history=3)
    found.encoders.save(folder / "encoders")
    return folder / "encoders", found


def newer(**columns):
    """The same site later: item 103 became 7, and there are a new user and a new page."""
    item = pl.when(pl.col("item_id") == 103).then(7).otherwise(pl.col("item_id"))
    frame = log(**EXTRA).with_columns(item_id=item, user_id=pl.col("user_id") + 3)
    frame = frame.with_columns(c_page=pl.lit("cart"), i_price=pl.col("i_price") * 100, **columns)
    return frame.select(reversed(frame.columns))


def test_known_values_stay_and_new_ones_are_added(earlier, tmp_path):
    folder, before = earlier
    found = prepare(newer(), tmp_path, known=str(folder))
    old, new = before.encoders, found.encoders
    words = new.vocabularies
    assert set(words["item_id"].keys) == {*old.vocabularies["item_id"].keys, 7}
    assert words["user_id"].keys.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert words["c_page"].keys.tolist() == ["cart", "home"]
    assert (new.size, new.history) == (old.size, old.history)
    same = (name for name in ("score", "widths", "numbers", "item_numbers"))
    assert all(new.transforms[name] == old.transforms[name] for name in same)
    for part in ("user", "context", "history", "item", "numbers", "item_numbers"):
        assert getattr(new.spec, part) == getattr(old.spec, part)
    batch = found.splits["train"].batch
    items = batch.request.candidates[..., 0][batch.request.where]
    raw = words["item_id"].keys[items - KNOWN]
    assert 7 in raw
    assert 103 not in raw
    top = before.splits["train"].batch.request.item_numbers.max()
    assert (batch.request.item_numbers[batch.request.where] == top).all()  # above all knots
    assert len(found.item_popularity) == words["item_id"].size


def test_without_anything_new_the_arrays_are_those_that_were(earlier, tmp_path):
    folder, before = earlier
    found = prepare(log(**EXTRA), tmp_path, size=6, known=str(folder))
    for name in ("candidates", "history", "user", "context", "item_numbers"):
        for split in ("train", "test"):
            old, new = (getattr(p.splits[split].batch.request, name) for p in (before, found))
            np.testing.assert_array_equal(old, new)


def test_rare_new_values_are_unknown_and_old_ones_are_kept_without_any_row(earlier, tmp_path):
    folder, before = earlier
    first = (pl.int_range(pl.len()) == 0) & (pl.col("item_id") == 100)
    rare = log(**EXTRA).with_columns(item_id=pl.when(first).then(1).otherwise(pl.col("item_id")))
    found = prepare(rare, tmp_path, known=str(folder), min_count=2)
    old, new = (p.encoders.vocabularies["item_id"].keys for p in (before, found))
    np.testing.assert_array_equal(old, new)
    train = found.splits["train"].batch.request
    assert (train.candidates[..., 0][train.where] == UNKNOWN).sum() == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.drop("i_price"), "has no column i_price, which the earlier model reads"),
        (
            lambda f: f.with_columns(item_id=pl.format("i{}", "item_id")),
            "column item_id holds text, but whole numbers when the earlier model was trained",
        ),
        (lambda f: f.with_columns(c_page=pl.lit(1.5)), "which cannot be read as id"),
    ],
)
def test_a_table_that_does_not_fit_is_one_clear_error(earlier, tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        prepare(change(log(**EXTRA)), tmp_path, known=str(earlier[0]))


def test_new_features_are_left_alone_and_encoders_must_be_there(earlier, tmp_path):
    found = prepare(newer(i_new=pl.lit(1)), tmp_path, known=str(earlier[0]))
    assert "i_new" in found.report["schema"]["ignored"]
    assert "i_new" not in found.encoders.transforms["kinds"]
    with pytest.raises(FileNotFoundError, match=f"nowhere, which holds no {encoders.FILE}"):
        prepare(newer(), tmp_path, known=str(tmp_path / "nowhere"))
