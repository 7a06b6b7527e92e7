"""Noise on lists: its laws in closed form, and its inverse against Bayes on enumerated lists."""

from itertools import permutations

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax import ops
from dnr_jax.rerankers.dcdr.noise import (
    Rates,
    draw_swap,
    noise_by_swaps,
    noise_by_tokens,
    possible_swaps,
    rates_of,
    swap,
    swap_gains,
    swap_log_probabilities,
    token_log_probabilities,
    token_posterior,
)

RNG = np.random.default_rng(0)
BETAS = np.array([0.1, 0.25, 0.4])
RATES = rates_of(jnp.asarray(BETAS, jnp.float32))
DRAWS = 20_000
# Holes, padding and a list shorter than the candidates: candidates 1 and 4 are not real.
LIST = jnp.array([3, -1, 0, 5], jnp.int32)
WHERE = jnp.array([True, False, True, True, False, True, True])


def chain(noise, start, where, step=3, rates=RATES):
    """Noise one list many times."""
    run = jax.vmap(noise, (0, None, None, None, None))
    keys = jax.random.split(jax.random.key(0), DRAWS)
    return jax.tree.map(np.asarray, factories.quick_jit(run)(keys, start, where, rates, step))


def each_swap(places, where):
    """Take every possible swap once: the lists after it, and the moves back."""
    count = int(possible_swaps(places, where).sum())
    shares = jnp.stack([jnp.zeros(count), (jnp.arange(count) + 0.5) / count], axis=1)
    run = jax.vmap(draw_swap, (0, None, None, None))
    return factories.quick_jit(run)(shares, places, where, jnp.float32(0.3))


def test_all_swaps_of_a_list_are_equally_likely_and_can_be_undone():
    places, where = jnp.asarray(RNG.permutation(50)[:6], jnp.int32), jnp.ones(50, bool)
    after, back = each_swap(places, where)
    assert after.shape == (279, 6)
    assert len(np.unique(after, axis=0)) == 279
    assert all(len(set(row)) == 6 for row in np.asarray(after).tolist())
    undone = jax.vmap(swap, (0, 0, None))(after, back, 50)
    np.testing.assert_array_equal(undone, jnp.broadcast_to(places, (279, 6)))


def test_swaps_leave_holes_and_padding_alone():
    after, _ = each_swap(LIST, WHERE)
    # 3 pairs of filled slots, and 3 slots with each of the real candidates 2 and 6.
    assert after.shape == (9, 4)
    assert bool((after[:, 1] == -1).all())
    assert set(np.unique(after)) == {-1, 0, 2, 3, 5, 6}


@pytest.mark.parametrize("noise", [noise_by_swaps, noise_by_tokens])
def test_without_a_rate_nothing_changes(noise):
    rates = rates_of(jnp.zeros(3))
    noisy, target = chain(noise, LIST, WHERE, rates=rates)
    assert np.all(noisy == np.asarray(LIST))
    np.testing.assert_allclose(target.reshape(DRAWS, -1).sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("noise", [noise_by_swaps, noise_by_tokens])
def test_an_empty_list_has_no_target(noise):
    noisy, target = chain(noise, jnp.full(4, -1, jnp.int32), WHERE)
    assert np.all(noisy == -1)
    assert np.all(target == 0)


def test_swaps_of_whole_permutations_mix_as_random_transpositions_do():
    noisy, _ = chain(noise_by_swaps, jnp.arange(4, dtype=jnp.int32), jnp.ones(4, bool))
    stays = 1 / 4 + 3 / 4 * np.prod(1 - 2 * BETAS / 3)
    np.testing.assert_allclose((noisy == np.arange(4)).mean(axis=0), stays, atol=0.015)
    signs = [np.linalg.det(np.eye(4)[row]) for row in noisy[:4000]]
    np.testing.assert_allclose(np.mean(signs), np.prod(1 - 2 * BETAS), atol=0.05)


def test_an_items_place_has_the_law_of_the_chain():
    """6 of 50, by slots: P(i, j) = 1 / 279 for i != j unless both are outside the list."""
    kernel = np.where(np.minimum.outer(np.arange(50), np.arange(50)) < 6, 1 / 279, 0.0)
    np.fill_diagonal(kernel, 0.0)
    kernel += np.diag(1 - kernel.sum(axis=1))
    law = np.linalg.multi_dot([(1 - b) * np.eye(50) + b * kernel for b in BETAS])
    noisy, _ = chain(noise_by_swaps, jnp.arange(6, dtype=jnp.int32), jnp.ones(50, bool))
    for item in (0, 5, 20):
        places = (noisy == item).mean(axis=0)
        np.testing.assert_allclose(places, law[item, :6], atol=0.006)


def test_the_noise_stops_at_its_step():
    noisy, back = chain(noise_by_swaps, jnp.arange(4, dtype=jnp.int32), jnp.ones(4, bool), step=1)
    moved = (noisy != np.arange(4)).any(axis=1)
    np.testing.assert_allclose(moved.mean(), BETAS[0], atol=0.01)
    np.testing.assert_array_equal(back[:, -1] == 0, moved)


def test_a_token_stays_by_the_closed_form():
    noisy, _ = chain(noise_by_tokens, LIST, WHERE)
    kept = np.prod(1 - BETAS)
    filled = np.asarray(LIST) >= 0
    stays = (noisy == np.asarray(LIST)).mean(axis=0)
    np.testing.assert_allclose(stays[filled], kept + (1 - kept) / 5, atol=0.015)
    assert stays[~filled] == 1
    assert set(np.unique(noisy)) == {-1, 0, 2, 3, 5, 6}


def kernels(step):
    """Q_t and Qbar_{t-1} over the real candidates, by multiplying matrices."""
    n = int(WHERE.sum())
    single = [(1 - b) * np.eye(n) + b / n for b in BETAS]
    before = np.linalg.multi_dot([np.eye(n), np.eye(n), *single[: step - 1]])
    return single[step - 1], before


@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_posterior_of_a_token_is_bayes(step):
    real = np.flatnonzero(WHERE)
    now, before = kernels(step)
    noisy = jnp.array([6, 3], jnp.int32)
    start = jnp.array([2, 3], jnp.int32)
    rates = Rates(*(a[step - 1] for a in RATES))
    found = np.asarray(token_posterior(noisy, start, WHERE, rates))
    assert np.all(found[:, ~np.asarray(WHERE)] == 0)
    for k in (0, 1):
        a, first = (list(real).index(int(x[k])) for x in (noisy, start))
        joint = before[first] * now[:, a]
        if joint.sum() > 0:
            expected = joint / joint.sum()
            np.testing.assert_allclose(found[k, real], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_token_is_guessed_by_the_mean_posterior(step):
    real = np.flatnonzero(WHERE)
    now, before = kernels(step)
    gains = jnp.asarray(2 * RNG.normal(size=(4, 7)), jnp.float32)
    rates = Rates(*(a[step - 1] for a in RATES))
    found = np.asarray(token_log_probabilities(gains, LIST, WHERE, rates), np.float64)
    guess = np.exp(np.asarray(gains, np.float64)[:, real])
    guess /= guess.sum(axis=1, keepdims=True)
    for k, token in enumerate(np.asarray(LIST)):
        if token < 0:
            continue
        a = list(real).index(token)
        joint = before * now[:, a]  # [a_0, a']
        expected = guess[k] @ (joint / joint.sum(axis=1, keepdims=True))
        np.testing.assert_allclose(np.exp(found[k, real]), expected, rtol=1e-4)
        assert np.all(found[k, ~np.asarray(WHERE)] < ops.MASKED_LOGIT / 2)


def value(gains, places):
    return sum(gains[k, i] for k, i in enumerate(places) if i >= 0)


def test_what_a_swap_changes_is_the_difference_of_two_lists():
    gains = RNG.normal(size=(4, 7)).astype(np.float32)
    found = swap_gains(jnp.asarray(gains), LIST)
    for k, i in np.argwhere(possible_swaps(LIST, WHERE)):
        after = np.asarray(swap(LIST, jnp.int32(k * 7 + i), 7))
        change = value(gains, after) - value(gains, np.asarray(LIST))
        np.testing.assert_allclose(found[k, i], change, rtol=1e-4, atol=1e-5)


def test_a_swap_back_is_bayes_where_the_gains_are_the_log_density():
    """Lists of 2 of 4: p(R') ~ exp(sum_k g_k), the noise enumerated, R_t given."""
    gains, beta = RNG.normal(size=(2, 4)).astype(np.float32), 0.4
    states = [list(s) for s in permutations(range(4), 2)]
    prior = np.exp([value(gains, s) for s in states])
    where = jnp.ones(4, bool)
    noise = np.eye(12) * (1 - beta)
    for row, state in enumerate(states):
        after, _ = each_swap(jnp.asarray(state, jnp.int32), where)
        for made in np.asarray(after).tolist():
            noise[row, states.index(made)] += beta / len(after)
    seen = [2, 1]
    joint = prior * noise[:, states.index(seen)]
    rates = Rates(jnp.float32(beta), jnp.float32(1.0))
    places = jnp.array(seen, jnp.int32)
    found = np.exp(swap_log_probabilities(jnp.asarray(gains), places, where, rates))
    for move in np.flatnonzero(found > 0):
        made = np.asarray(swap(places, jnp.int32(move), 4)).tolist()
        expected = joint[states.index(made)] / joint.sum()
        np.testing.assert_allclose(found[move], expected, rtol=1e-4)
    np.testing.assert_allclose(found.sum(), 1.0, rtol=1e-5)
    assert (found > 0).sum() == 6  # 5 swaps, and to stay


def test_a_list_without_a_swap_stays():
    only = jnp.array([1, -1], jnp.int32), jnp.array([False, True])
    (found,) = {float(swap_log_probabilities(jnp.ones((2, 2)), *only, Rates(0.4, 1.0))[-1])}
    assert found == 0
    noisy, back = chain(noise_by_swaps, *only)
    assert np.all(noisy == [1, -1])
    assert np.all(back[:, -1] == 1)
