"""Policy gradients on plain arrays."""

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax.nn.policy_gradient import reinforce_loss


def test_the_policy_moves_towards_lists_above_the_mean():
    rewards = jnp.array([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0], [9.0, 0.0, 0.0]])
    real = jnp.array([True, True, False])
    slope = jax.grad(reinforce_loss, argnums=1)(rewards, jnp.zeros((3, 3)), real)
    # -advantage / samples / real requests; equal rewards teach nothing.
    expected = np.array([[2.0, 1.0, -3.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]) / 3 / 2
    np.testing.assert_allclose(slope, expected, rtol=1e-6)
