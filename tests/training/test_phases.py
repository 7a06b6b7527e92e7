"""Two phases: the switch, the best epoch, patience, resume and the stop on a non-finite loss."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_players

from dnr_jax.training.epoch import NonFiniteError, alternate, make_epoch, stack_states
from dnr_jax.training.phases import Phase, StagePlan, finished, fit, start
from dnr_jax.training.step import make_step

SEEDS = [0, 1]


@pytest.fixture(scope="module")
def phases():
    def phase(generator_updates):
        plays = generator_updates > 0
        step = make_step(toy_players.GAME, toy_players.OPTIMIZER, plays=plays)
        updates = alternate(3, generator_updates=generator_updates, reranker_updates=1)
        return Phase(make_epoch(step, seeds="map"), updates)

    return phase(0), phase(1)


def plan(phases, **changes):
    return StagePlan(phases, 2, 4, 0, 4, SEEDS)._replace(**changes)


def begin():
    return start(stack_states([toy_players.state(seed) for seed in SEEDS]), len(SEEDS))


def slope(params):
    """A stand-in for validation: larger slopes are better."""
    return params["slope"] / 100


def run(progress, plan, validate=slope, data=None):
    seen = []
    data = toy_players.batch() if data is None else data
    progress = fit(progress, data, plan, validate, lambda p, r: seen.append((int(p.epoch), r)))
    return progress, seen


def test_generator_moves_from_lambda_e_on(phases):
    first = begin()
    initial = jax.tree.map(np.array, first.states.params["generator"])
    progress, seen = run(first, plan(phases, epochs=2))
    chex.assert_trees_all_equal(progress.states.params["generator"], initial)
    assert "adversarial" not in seen[-1][1]
    progress, seen = run(progress, plan(phases, epochs=3))
    assert np.all(progress.states.params["generator"]["gain"] != initial["gain"])
    assert seen[-1][1]["adversarial"].shape == (2,)


def test_best_epoch_is_kept_for_each_seed(phases):
    values = iter(jnp.array([[0.1, 0.4], [0.3, 0.2], [0.2, 0.3], [0.3, 0.5]]))
    params = []

    def validate(theta):
        params.append(jax.tree.map(np.array, theta))
        return next(values)

    progress, _ = run(begin(), plan(phases), validate)
    assert progress.best_epoch.tolist() == [2, 4]  # a tie keeps the earlier epoch
    np.testing.assert_allclose(progress.best_value, [0.3, 0.5])
    expected = [params[1]["slope"][0], params[3]["slope"][1]]
    np.testing.assert_array_equal(progress.best_params["slope"], expected)


def test_patience_waits_for_the_second_phase(phases):
    flat = lambda theta: jnp.full(2, 0.1)  # noqa: E731
    progress, _ = run(begin(), plan(phases, epochs=9, patience=2), flat)
    assert int(progress.epoch) == 4  # best at 1, phase 2 begins at 2, two more epochs
    alone = plan((phases[0], None), epochs=9, patience=2)
    progress, _ = run(begin(), alone, flat)
    assert int(progress.epoch) == 3
    assert finished(progress, alone)


def test_going_on_from_any_epoch_is_bit_identical(phases):
    whole, _ = run(begin(), plan(phases))
    for stop in (1, 2, 3):
        half, _ = run(begin(), plan(phases, epochs=stop))
        stored = jax.tree.map(lambda leaf: leaf.copy(), half)
        again, _ = run(stored, plan(phases))
        chex.assert_trees_all_equal(
            again.replace(states=again.states.replace(key=None)),
            whole.replace(states=whole.states.replace(key=None)),
        )


def test_a_nan_stops_the_run_before_it_is_recorded(phases):
    data = toy_players.batch()
    poisoned = data.replace(scores=data.scores.at[3, 1].set(jnp.nan))
    seen = []
    with pytest.raises(NonFiniteError, match="'direct' is not finite at step"):
        fit(begin(), poisoned, plan(phases), slope, lambda p, r: seen.append(p))
    assert seen == []
