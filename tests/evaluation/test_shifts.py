"""Changed scores against hand-made ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax.evaluation.shifts import AS_TRAINED, SHIFTS, Pool

WHERE = np.array([[True, True, True, False], [True, True, True, True]])
X = np.array([[0.5, 0.1, 1.0, 0.0], [0.2, 0.9, 0.0, 0.4]], np.float32)
POOL = Pool(
    *map(jnp.asarray, (X, WHERE)),
    jnp.arange(2, dtype=jnp.uint32),
    jnp.asarray([[0.0, 3.0, 15.0, 9.0], [7.0, 7.0, 7.0, 7.0]]),
)
BY_HAND = {
    "as_trained": X,
    "popularity": [[0, 0.5, 1, 0], [0.5] * 4],  # log 1, log 4, log 16
    "ranks": [[0.5, 0, 1, 0], [1 / 3, 1, 0, 2 / 3]],
    "squared": X**2,
    "missing": np.zeros((2, 4)),
    "reversed": [[0.5, 0.9, 0, 0], [0.8, 0.1, 1, 0.6]],
}


@pytest.mark.parametrize("name", BY_HAND)
def test_values_are_those_by_hand(name):
    found = SHIFTS[name].scores(POOL, jax.random.key(0))
    np.testing.assert_allclose(found, BY_HAND[name], atol=1e-6)
    assert next(iter(SHIFTS)) == AS_TRAINED


def test_half_noise_keeps_some_of_the_order_and_whole_noise_none():
    x = jax.random.uniform(jax.random.key(1), (300, 40))
    pool = Pool(x, jnp.ones((300, 40), bool), jnp.arange(300, dtype=jnp.uint32), x)

    def correlation(name):
        found = np.asarray(SHIFTS[name].scores(pool, jax.random.key(2)))
        assert found.min() == 0
        assert found.max() == 1
        return np.corrcoef(found.ravel(), np.ravel(x))[0, 1]

    assert correlation("noise_50") == pytest.approx(np.sqrt(0.5), abs=0.03)  # equal variances
    assert correlation("noise_100") == pytest.approx(0, abs=0.03)
