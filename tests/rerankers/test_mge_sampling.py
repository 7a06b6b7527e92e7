"""Lists sampled place by place from the matching matrix, and their likelihood."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax.nn.slates import places_log_probability
from dnr_jax.rerankers.mge.sampling import sample_places

MATRIX = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 3)), jnp.float32)
REAL = jnp.array([[True, True, False, True, True], [False, True, False, False, True]])


def log_probability(row, lists):
    matching = jnp.swapaxes(MATRIX[row : row + 1], 1, 2)
    with jax.numpy_rank_promotion("raise"):
        return places_log_probability(matching, REAL[row : row + 1], lists[None])[0]


def test_the_probabilities_of_all_lists_sum_to_one():
    orders = jnp.asarray(list(permutations([0, 1, 3, 4], 3)), jnp.int32)
    logs = log_probability(0, orders)
    np.testing.assert_allclose(jnp.exp(logs).sum(), 1.0, rtol=1e-5)
    weights, expected = np.exp(np.asarray(MATRIX[0], np.float64)), []
    for order in np.asarray(orders):
        left, chance = [0, 1, 3, 4], 1.0
        for k, item in enumerate(order):
            chance *= weights[item, k] / weights[left, k].sum()
            left.remove(item)
        expected.append(np.log(chance))
    np.testing.assert_allclose(logs, expected, rtol=1e-4, atol=1e-5)
    short = jnp.array([[1, 4, -1], [4, 1, -1]])
    logs = log_probability(1, short)
    np.testing.assert_allclose(jnp.exp(logs).sum(), 1.0, rtol=1e-5)


def test_lists_are_drawn_with_their_probabilities():
    keys = jax.random.split(jax.random.key(0), 2)
    drawn = sample_places(keys, MATRIX, REAL, count=4000)
    assert drawn.shape == (2, 4000, 3)
    found, counts = np.unique(np.asarray(drawn[0]), axis=0, return_counts=True)
    assert not np.isin(2, found)
    assert all(len(set(row)) == 3 for row in found)
    chances = jnp.exp(log_probability(0, jnp.asarray(found)))
    assert np.all(np.abs(counts / 4000 - chances) < 4 * np.sqrt(chances / 4000))
    assert chances.sum() > 0.99
    assert set(map(tuple, np.asarray(drawn[1]))) == {(1, 4, -1), (4, 1, -1)}
    alone = sample_places(keys[1:], MATRIX[1:], REAL[1:], count=4000)
    np.testing.assert_array_equal(alone, drawn[1:])
