"""Each player's optimiser against a numpy Adam, and the idle player against itself."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy_players

from dnr_jax.settings import MOST_INT
from dnr_jax.training.optimizers import (
    GENERATOR,
    RERANKER,
    OptimizerSettings,
    adam_with_l2,
    two_player_optimizer,
)


def numpy_adam(settings, decay_steps, gradients, value):
    """Clip -> L2 -> Adam -> staircase, written out as in PyTorch's documentation."""
    first = second = np.zeros_like(value)
    for count, gradient in enumerate(gradients):
        gradient = gradient * min(1.0, settings.clip / np.linalg.norm(gradient))
        gradient = gradient + settings.weight_decay * value
        first = settings.b1 * first + (1 - settings.b1) * gradient
        second = settings.b2 * second + (1 - settings.b2) * gradient**2
        first_hat = first / (1 - settings.b1 ** (count + 1))
        second_hat = second / (1 - settings.b2 ** (count + 1))
        rate = settings.learning_rate * settings.decay_factor ** (count // decay_steps)
        value = value - rate * first_hat / (np.sqrt(second_hat) + settings.eps)
    return value


@pytest.mark.parametrize(("decay_every", "steps_per_epoch"), [(7, 1), (2, 3)])
def test_adam_with_l2_is_the_group_s_optimiser(decay_every, steps_per_epoch):
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(20, 4)) * 10 ** rng.uniform(-1, 2, size=(20, 1))
    start = rng.normal(size=4)
    settings = dataclasses.replace(toy_players.SETTINGS, decay_every=decay_every)
    optimizer = adam_with_l2(settings, steps_per_epoch=steps_per_epoch)
    params, state = jnp.asarray(start), optimizer.init(jnp.asarray(start))
    for gradient in gradients:
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
    expected = numpy_adam(settings, decay_every * steps_per_epoch, gradients, start)
    np.testing.assert_allclose(params, expected, rtol=2e-5)


@pytest.mark.parametrize(
    ("turn", "active", "idle"),
    [(RERANKER, "reranker", "generator"), (GENERATOR, "generator", "reranker")],
)
def test_idle_player_and_its_state_stay_bit_identical(turn, active, idle):
    optimizer = toy_players.OPTIMIZER
    params = {"reranker": {"w": jnp.ones(3)}, "generator": {"v": jnp.ones(2)}}
    ones = jax.tree.map(jnp.ones_like, params)
    state = optimizer.init(params)
    for both in (RERANKER, GENERATOR):  # fill the momenta of both players first
        _, state = optimizer.update(ones, state, params, turn=both)
    updates, after = jax.jit(optimizer.update)(ones, state, params, turn=turn)
    chex.assert_trees_all_equal(updates[idle], jax.tree.map(jnp.zeros_like, params[idle]))
    chex.assert_trees_all_equal(after.inner_states[idle], state.inner_states[idle])
    assert all(np.all(u != 0) for u in jax.tree.leaves(updates[active]))
    counts = optax.tree.get_all_with_path(after.inner_states[active], "count")
    assert {int(count) for _, count in counts} == {2}


def test_each_player_s_decay_counts_its_own_updates():
    settings = dataclasses.replace(toy_players.SETTINGS, decay_every=2, decay_factor=0.1, clip=1e9)
    optimizer = two_player_optimizer(settings, settings, steps_per_epoch=(3, 1))
    params = {"reranker": jnp.zeros(1), "generator": jnp.zeros(1)}
    update, state = jax.jit(optimizer.update), optimizer.init(params)
    for turn, name, updates in ((RERANKER, "reranker", 6), (GENERATOR, "generator", 2)):
        moves = []
        for _ in range(updates + 1):
            moved, state = update(jax.tree.map(jnp.ones_like, params), state, params, turn=turn)
            moves.append(float(moved[name][0]))
        np.testing.assert_allclose(moves[:-1], moves[0], rtol=1e-3)
        np.testing.assert_allclose(moves[-1], 0.1 * moves[0], rtol=1e-3)


def test_a_group_of_no_player_is_refused():
    settings = toy_players.SETTINGS
    optimizer = two_player_optimizer(settings, settings, steps_per_epoch=(1, 1))
    with pytest.raises(ValueError, match=r"\['critic'\] do not belong to a player"):
        optimizer.init({"reranker": jnp.ones(1), "critic": jnp.ones(1)})


def test_a_decay_beyond_what_int32_counts_never_comes():
    settings = dataclasses.replace(toy_players.SETTINGS, decay_every=MOST_INT)
    optimizer = adam_with_l2(settings, steps_per_epoch=1000)
    params = jnp.ones(2)
    updates, _ = optimizer.update(jnp.ones(2), optimizer.init(params), params)
    np.testing.assert_allclose(updates, -settings.learning_rate, rtol=1e-4)


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        *[("learning_rate", value) for value in (0.0, -1.0, 1e9, np.inf, np.nan)],
        *[("weight_decay", value) for value in (-1e-3, np.inf)],
        *[("clip", value) for value in (0.0, np.inf)],
        *[(moment, value) for moment in ("b1", "b2") for value in (-0.1, 1.0)],
        *[("eps", 0.0), ("decay_factor", 0.0), ("decay_factor", 2.0), ("decay_every", 0)],
    ],
)
def test_a_value_out_of_range_is_refused(knob, value):
    with pytest.raises(ValueError, match=f"^{knob} is {value!r}: it must be "):
        OptimizerSettings(**{knob: value})
