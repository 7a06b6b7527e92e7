"""Codes and order of rows, in blocks and parts of a few rows, against a slow reference."""

import numpy as np
import polars as pl
import pytest

from dnr_jax.data import ids, order
from dnr_jax.data.hashing import mix
from dnr_jax.data.ids import Ids

NUMBERS = [2**40, -3, 7, 7, 2**40, 0]


@pytest.mark.parametrize(
    ("values", "known"),
    [
        (NUMBERS, [-3, 0, 7, 2**40]),
        ([-1, 4, 1, 4, 2, -1], [-1, 1, 2, 4]),
        ([str(n) for n in NUMBERS], [-3, 0, 7, 2**40]),
        (["b", "é", "a", "a", "10", "9"], ["10", "9", "a", "b", "é"]),
        (["7", "07", "7"], ["07", "7"]),
    ],
)
def test_ids_are_coded_by_their_sorted_order(monkeypatch, values, known):
    monkeypatch.setattr(ids, "CHUNK", 4)
    text = isinstance(values[0], str)
    column = pl.Series(values, dtype=pl.Categorical(pl.Categories.random()) if text else pl.Int64)
    codes, found = ids.code(column)
    assert found.values.tolist() == known
    assert codes.dtype == np.int32
    assert [str(found.values[c]) for c in codes] == [str(v) for v in values]
    assert (found.keys is None) == isinstance(known[0], int)
    raw = codes if isinstance(known[0], str) else [int(v) for v in values]
    np.testing.assert_array_equal(found.raw(codes), raw)


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("repeats", ["first", "last"])
@pytest.mark.parametrize("tie_seed", [0, 3])
def test_rows_are_ordered_as_pairs_are_by_hand(monkeypatch, block, repeats, tie_seed):
    monkeypatch.setattr(order, "BLOCK", block)
    draw = np.random.default_rng(1)
    user, item, time = (draw.integers(0, n, 90).astype(np.int32) for n in (6, 9, 5))
    names = np.arange(9) * 11
    tie = mix(tie_seed, 0, user, names[item]) if tie_seed else np.zeros(90)
    rows = sorted(range(90), key=lambda n: (user[n], time[n], tie[n], n))
    kept = {}
    for row in rows if repeats == "last" else rows[::-1]:
        kept[user[row], item[row]] = row  # the last one that is written stays
    expected = [row for row in rows if row in kept.values()]
    columns = order.Column(user, Ids(np.arange(6))), order.Column(item, Ids(names))
    found = order.in_order(*columns, time, tie_seed=tie_seed, repeats=repeats)
    assert found.tolist() == expected
