"""Lists, histories and splits against hand cases and a slow reference."""

from __future__ import annotations

import numpy as np
import pytest

from dnr_jax.data import lists as lists_
from dnr_jax.data.interactions import Interactions
from dnr_jax.data.lists import TEST, TRAIN, VALID


def interactions(counts, seed=0, **features):
    """Users 10, 20, ... with the given numbers of rows; items and labels random."""
    draw = np.random.default_rng(seed)
    user = np.repeat(10 * np.arange(1, len(counts) + 1), counts)
    item = np.concatenate([100 + draw.permutation(60)[:n] for n in counts])
    label = draw.integers(0, 2, len(user)).astype(np.float32)
    time = np.concatenate([np.sort(draw.integers(0, 9, n)) for n in counts])
    user_features = features.get("user_features", {})
    return Interactions(user, item, label, time, user_features, features.get("item", {}), {})


def test_hand_case():
    item = np.arange(50, 58)
    label = np.float32([1, 0, 1, 1, 0, 0, 1, 1])
    rows = Interactions(np.full(8, 4), item, label, np.arange(8) // 2, {}, {}, {})
    made = lists_.build(rows, slate=2, history=3)
    np.testing.assert_array_equal(made.items, [[2, 3], [4, 5], [6, 7], [8, 9]])
    np.testing.assert_array_equal(made.labels, label.reshape(4, 2))
    np.testing.assert_array_equal(made.split, [TRAIN, TRAIN, VALID, TEST])
    np.testing.assert_array_equal(made.history, [[0, 0, 0], [0, 2, 3], [3, 4, 5], [5, 6, 7]])
    np.testing.assert_array_equal(made.feedback, [[0, 0, 0], [0, 3, 2], [2, 3, 3], [3, 2, 2]])
    np.testing.assert_array_equal(made.time, [0, 1, 2, 3])
    np.testing.assert_array_equal(made.catalogue.item_ids, [-1, -1, *item])
    assert made.report["lists_starting_in_a_tie"] == 0


def test_against_a_slow_reference(monkeypatch):
    monkeypatch.setattr(lists_, "CHUNK", 4)
    counts, slate, history = [19, 5, 6, 30, 7], 2, 4
    rows = interactions(counts)
    made = lists_.build(rows, slate=slate, history=history)
    raw, number = made.catalogue.item_ids, 0
    for u in np.unique(rows.user):
        item, label = rows.item[rows.user == u], rows.label[rows.user == u]
        total = len(item) // slate
        if total < 3:
            assert u not in made.catalogue.user_ids
            continue
        for n in range(total):
            start = n * slate
            assert made.catalogue.user_ids[made.user[number]] == u
            np.testing.assert_array_equal(raw[made.items[number]], item[start : start + slate])
            before = item[max(start - history, 0) : start]
            padding = [-1] * (history - len(before))
            np.testing.assert_array_equal(raw[made.history[number]], [*padding, *before])
            feedback = 2 + label[max(start - history, 0) : start]
            np.testing.assert_array_equal(
                made.feedback[number], [*np.zeros(len(padding)), *feedback]
            )
            expected = {total - 1: TEST, total - 2: VALID}.get(n, TRAIN)
            assert made.split[number] == expected
            number += 1
    assert number == len(made.user)
    assert made.report["users_dropped_short"] == 1
    assert made.report["rows_dropped_tail"] == 2


def test_training_pairs_hold_no_valid_or_test_interaction():
    made = lists_.build(interactions([20, 31, 18]), slate=3, history=5)
    parts = [lists_.events(made, split) for split in (TRAIN, VALID, TEST)]
    keys = [set(zip(p.user.tolist(), p.item.tolist(), strict=True)) for p in parts]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    assert sum(map(len, keys)) == made.items.size
    train = parts[0]
    assert (made.split[train.request] == TRAIN).all()
    np.testing.assert_array_equal(made.user[train.request], train.user)
    counted = np.bincount(train.item, minlength=len(made.catalogue.item_ids))
    np.testing.assert_array_equal(lists_.popularity(made), counted)


def test_features_are_encoded_beside_the_ids():
    features = {"gender": {10: "F", 20: "M", 99: "X"}}
    made = lists_.build(interactions([9, 9, 9], user_features=features), slate=3, history=2)
    assert made.catalogue.user_columns == ("user_id", "gender")
    expected = [[0, 0], [1, 1], [2, 2], [3, 3], [4, 1]]  # user 30 has no gender: unknown
    np.testing.assert_array_equal(made.catalogue.users, expected)
    assert made.catalogue.vocabularies["gender"].size == 4
    assert made.catalogue.users.dtype == made.catalogue.items.dtype == np.int32


def test_item_vectors_approximate_shared_users():
    made = lists_.build(interactions([45] * 40), slate=5, history=5)
    vectors = lists_.item_vectors(made, width=4000, seed=0)
    train = lists_.events(made, TRAIN)
    met = np.zeros((len(made.catalogue.user_ids), len(made.catalogue.item_ids)))
    met[train.user, train.item] = 1
    np.testing.assert_allclose(vectors @ vectors.T, met.T @ met, atol=3.5)
    np.testing.assert_array_equal(vectors, lists_.item_vectors(made, width=4000, seed=0))


def test_boundary_ties_are_counted():
    rows = interactions([6])._replace(time=np.array([1, 2, 2, 3, 4, 5]))
    assert lists_.build(rows, slate=2, history=2).report["lists_starting_in_a_tie"] == 1


def test_too_little_data_is_refused():
    with pytest.raises(ValueError, match=r"no user has 3 lists of 6 items.*17"):
        lists_.build(interactions([17, 3]), slate=6, history=5)
    with pytest.raises(ValueError, match="at least 1"):
        lists_.build(interactions([17]), slate=0, history=5)
