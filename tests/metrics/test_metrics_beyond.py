"""Diversity, coverage, long tail and popularity against hand-made lists."""

import jax
import numpy as np
import pytest

from dnr_jax.metrics import beyond

diversity = jax.jit(beyond.intra_list_diversity)
# Ids 0 and 1 are padding and unknown; 2 .. 6 are a catalogue of five.
POPULARITY = np.float32([0, 3, 10, 9, 1, 1, 0])


def test_top_items_shows_real_candidates_only():
    shown = beyond.top_items(
        np.float32([[1, 3, 2], [5, 9, 9]]),
        np.int32([[4, 5, 6], [4, 5, 6]]),
        np.array([[True, True, True], [True, False, False]]),
        k=2,
    )
    assert shown.tolist() == [[5, 6], [4, 0]]


def test_diversity_is_the_mean_pairwise_cosine_distance():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(7, 4)).astype(np.float32)
    items = np.array([[2, 3, 6], [4, 5, 0], [2, 0, 0]])
    value, valid = diversity(items, vectors)

    def distance(a, b):
        a, b = vectors[a], vectors[b]
        return 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    expected = np.mean([distance(2, 3), distance(2, 6), distance(3, 6)])
    assert value[0] == pytest.approx(expected, abs=1e-6)
    assert value[1] == pytest.approx(distance(4, 5), abs=1e-6)
    assert valid.tolist() == [True, True, False]


def test_zero_vectors_are_orthogonal_and_copies_have_no_diversity():
    vectors = np.float32([[0, 0], [0, 0], [1, 2], [0, 0], [2, 4], [0, 0], [0, 0]])
    value, _ = diversity(np.array([[2, 4], [2, 3]]), vectors)
    np.testing.assert_allclose(value, [0, 1], atol=1e-6)


def test_coverage_counts_known_items_once():
    assert beyond.coverage(np.array([[2, 3], [2, 0], [1, 0]]), 7) == pytest.approx(2 / 5)


def test_the_head_is_a_fifth_of_the_catalogue():
    assert np.flatnonzero(beyond.head_items(POPULARITY)).tolist() == [2]
    items = np.array([[2, 3], [1, 0]])
    assert beyond.long_tail_share(items, POPULARITY) == pytest.approx(2 / 3)
    assert beyond.mean_popularity(items, POPULARITY) == pytest.approx((10 + 9 + 3) / 3)


def test_nothing_shown_gives_nan():
    empty = np.zeros((2, 3), int)
    assert np.isnan(beyond.long_tail_share(empty, POPULARITY))
    assert np.isnan(beyond.mean_popularity(empty, POPULARITY))
    assert beyond.coverage(empty, 7) == 0
    assert np.isnan(beyond.coverage(empty, 2))
