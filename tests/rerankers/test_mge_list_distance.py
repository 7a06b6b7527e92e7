"""The disagreement of two lists: by hand, at its ends, and as the gain of a pool."""

from itertools import combinations

import jax.numpy as jnp
import numpy as np
from slow_lists import disagreement_by_hand

from dnr_jax.rerankers.mge.list_distance import disagreement

POOL = np.argsort(np.random.default_rng(0).random((4, 5, 7)), axis=-1)[..., :3]
POOL[1, 2, 2] = POOL[2, 0] = -1  # a short list and an empty one
POOL = jnp.asarray(POOL, jnp.int32)


def test_the_kernel_is_that_disagreement_by_hand():
    found = disagreement(POOL, POOL[:, :3])
    assert found.shape == (4, 5, 3)
    for b in range(4):
        expected = [[disagreement_by_hand(x, y) for y in POOL[b, :3]] for x in POOL[b]]
        np.testing.assert_allclose(found[b], expected, rtol=1e-6)
    assert 0 < float(found.mean()) < 1


def test_the_kernel_is_symmetric_and_knows_its_ends():
    found = disagreement(POOL, POOL)
    np.testing.assert_array_equal(found, jnp.swapaxes(found, 1, 2))
    np.testing.assert_array_equal(jnp.diagonal(found, axis1=1, axis2=2), 0.0)
    lists = jnp.array([[[0, 1, 2]]])
    others = jnp.array([[[0, 1, 2], [2, 1, 0], [3, 4, 5], [0, 2, 1], [-1, -1, -1]]])
    np.testing.assert_allclose(
        disagreement(lists, others)[0, 0], [0.0, 1.0, 1.0, 1 / 3, 1.0], rtol=1e-6
    )


def test_the_gain_of_a_list_is_what_it_adds_to_the_complementarity():
    def complementarity(pool):
        return sum(disagreement_by_hand(x, y) for x, y in combinations(pool, 2))

    for b in range(4):
        gain = complementarity(POOL[b]) - complementarity(POOL[b, :4])
        others = disagreement(POOL[b : b + 1, 4:], POOL[b : b + 1, :4])
        np.testing.assert_allclose(others.mean() * 4, gain, rtol=1e-5)
