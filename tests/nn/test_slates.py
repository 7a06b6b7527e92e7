"""Sampling, likelihood and scoring of item lists, against enumeration and the closed form."""

from itertools import permutations

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax import ops
from dnr_jax.nn import slates

LOGITS = np.array([[0.3, -1.0, 1.2, 0.0]], np.float32)
WHERE = np.array([[True, True, False, True]])


def plackett_luce(logits, order):
    """Probability of drawing `order` without replacement, by the definition."""
    left, probability = list(range(len(logits))), 1.0
    for item in order:
        weights = np.exp(logits[left])
        probability *= weights[left.index(item)] / weights.sum()
        left.remove(item)
    return probability


def test_log_probability_is_that_of_drawing_without_replacement():
    real = np.flatnonzero(WHERE[0])
    every = list(permutations(range(3), 2))
    group = np.array([[[real[i] for i in order] for order in every]], np.int32)
    found = factories.quick_jit(slates.list_log_probability)(LOGITS, WHERE, group)[0]
    expected = [plackett_luce(LOGITS[0, real], order) for order in every]
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(), 1.0, rtol=1e-5)


def test_an_empty_place_adds_nothing_to_the_log_probability():
    full, cut = (np.array([[row]], np.int32) for row in ([3, 0, -1], [3, 0, 1]))
    found = [slates.list_log_probability(LOGITS, WHERE, group)[0, 0] for group in (full, cut)]
    np.testing.assert_allclose(*found, rtol=1e-5)  # the last of three candidates is certain


def test_samples_follow_plackett_luce():
    keys = jax.random.split(jax.random.key(0), 1)
    drawn = slates.sample_lists(keys, jnp.asarray(LOGITS), jnp.asarray(WHERE), size=2, count=40000)
    real = np.flatnonzero(WHERE[0])
    found, counts = np.unique(np.asarray(drawn[0]), axis=0, return_counts=True)
    assert {tuple(row) for row in found} == set(permutations(real.tolist(), 2))
    for row, count in zip(found, counts, strict=True):
        expected = plackett_luce(LOGITS[0, real], [real.tolist().index(i) for i in row])
        assert abs(count / 40000 - expected) < 4 * np.sqrt(expected / 40000)


def test_a_list_ends_where_the_candidates_do():
    best = slates.top_list(jnp.asarray(LOGITS), jnp.asarray(WHERE), 6)
    assert best.tolist() == [[0, 3, 1, -1, -1, -1]]


def test_the_list_stands_before_the_others_which_keep_their_order():
    order = np.asarray(
        slates.score_list(jnp.array([[1, 3, -1]]), jnp.asarray(LOGITS), jnp.asarray(WHERE))[0]
    )
    assert order[1] == 3.0
    assert order[3] == 2.0
    assert -len(order) < order[0] <= 0.0
    assert order[2] == ops.MASKED_LOGIT


@pytest.mark.parametrize(("offset", "scale"), [(0, 1), (100, 1), (-100, 1), (0, 1e-3), (1e4, 1e2)])
def test_the_others_keep_their_order_and_their_ties_whatever_the_logits(offset, scale):
    logits = np.random.default_rng(0).integers(9, size=(6, 20)).astype(np.float32) * scale + offset
    where = np.random.default_rng(1).random((6, 20)) < 0.8
    lists = np.full((6, 1), -1, np.int32)
    order = np.asarray(slates.score_list(jnp.asarray(lists), jnp.asarray(logits), where))
    for found, given, real in zip(order, logits, where, strict=True):
        pairs = np.sign(found[real][:, None] - found[real][None])
        np.testing.assert_array_equal(pairs, np.sign(given[real][:, None] - given[real][None]))


def test_chosen_before_is_a_running_set():
    found = slates.chosen_before(jnp.array([2, -1, 0]), 3)
    assert found.tolist() == [[False] * 3, [False, False, True], [False, False, True]]
