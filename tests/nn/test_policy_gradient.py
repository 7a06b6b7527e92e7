"""Policy gradients on plain arrays: returns, advantages, REINFORCE, the clip of PPO."""

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax.nn.policy_gradient import (
    clipped_gain,
    discounted_returns,
    reinforce_loss,
    standardise,
)

REWARDS = jnp.asarray(np.random.default_rng(0).random((4, 5, 3)), jnp.float32)


def test_the_policy_moves_towards_lists_above_the_mean():
    rewards = jnp.array([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0], [9.0, 0.0, 0.0]])
    real = jnp.array([True, True, False])
    slope = jax.grad(reinforce_loss, argnums=1)(rewards, jnp.zeros((3, 3)), real)
    # -advantage / samples / real requests; equal rewards teach nothing.
    expected = np.array([[2.0, 1.0, -3.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]) / 3 / 2
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


def test_a_return_is_the_reward_and_the_discounted_next_return():
    returns = np.asarray(discounted_returns(REWARDS, 0.3), np.float64)
    rewards = np.asarray(REWARDS, np.float64)
    np.testing.assert_allclose(returns[..., 2], rewards[..., 2], rtol=1e-6)
    for k in (0, 1):
        np.testing.assert_allclose(
            returns[..., k], rewards[..., k] + 0.3 * returns[..., k + 1], rtol=1e-6
        )
    np.testing.assert_array_equal(discounted_returns(REWARDS, 0.0), REWARDS)


def test_advantages_are_standard_scores_of_each_place():
    advantages = np.asarray(standardise(10 * REWARDS + 3, ddof=0), np.float64)
    np.testing.assert_allclose(advantages.mean(axis=1), 0.0, atol=1e-5)
    np.testing.assert_allclose(advantages.std(axis=1), 1.0, rtol=1e-4)
    order = np.argsort(np.asarray(REWARDS), axis=1)
    np.testing.assert_array_equal(np.argsort(advantages, axis=1), order)
    # 0.7 is no binary number: its mean may differ from it by rounding.
    np.testing.assert_array_equal(standardise(jnp.full((2, 5, 3), 0.7), ddof=0), 0.0)


NEW = jnp.log(jnp.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.5]))
OLD = NEW - jnp.log(jnp.array([1.0, 1.0, 1.3, 1.3, 0.7, 0.7]))
SIGNS = jnp.array([2.0, -2.0, 2.0, -2.0, 2.0, -2.0])


def test_the_gain_is_flat_where_the_choice_has_moved_far_enough():
    gain = clipped_gain(NEW, OLD, SIGNS, clip=0.1)
    np.testing.assert_allclose(gain, [2.0, -2.0, 2.2, -2.6, 1.4, -1.8], rtol=1e-5)
    slope = jax.grad(lambda new: clipped_gain(new, OLD, SIGNS, clip=0.1).sum())(NEW)
    np.testing.assert_allclose(slope, [2.0, -2.0, 0.0, -2.6, 1.4, 0.0], rtol=1e-5)


def test_the_first_step_is_that_of_reinforce_and_nothing_else_moves():
    def gain(new, old, advantages):
        return clipped_gain(new, old, advantages, clip=0.1).sum()

    slopes = jax.grad(gain, argnums=(0, 1, 2))(NEW, NEW, SIGNS)
    np.testing.assert_allclose(slopes[0], SIGNS, rtol=1e-6)
    np.testing.assert_array_equal(slopes[1], 0.0)
    np.testing.assert_array_equal(slopes[2], 0.0)
    # The same array in both roles, as in a step that draws by the parameters that learn.
    np.testing.assert_allclose(jax.grad(lambda new: gain(new, new, SIGNS))(NEW), SIGNS, rtol=1e-6)
