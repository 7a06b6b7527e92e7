"""Stepping back: the beam against brute force, and a denoiser that learns where liked lists lie."""

from functools import cache
from itertools import permutations

import factories
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.dropout import identity
from dnr_jax.nn.trunk import Trunk
from dnr_jax.rerankers.dcdr.denoiser import LIKED, PERMUTATION, TOKEN, ListDiffusion, step_back
from dnr_jax.rerankers.dcdr.noise import (
    Rates,
    swap,
    swap_log_probabilities,
    token_log_probabilities,
)

RNG = np.random.default_rng(0)
RATES = Rates(jnp.float32(0.4), jnp.float32(0.6))
WHERE = jnp.array([True, True, False, True, True, True])
LISTS = jnp.array([[4, 0], [0, 5], [4, 3]], jnp.int32)
TOTALS = jnp.array([-0.2, -0.9, ops.MASKED_LOGIT])
GAINS = jnp.asarray(1.5 * RNG.normal(size=(3, 2, 6)), jnp.float32)
PROCESSES = {"permutation": PERMUTATION, "token": TOKEN}


def best_of(children, width):
    """Keep the W best (total, list), each list once, of a dict from list to total."""
    return sorted(children.items(), key=lambda pair: -pair[1])[:width]


def assert_beam(found, expected):
    lists, totals = found
    alive = np.asarray(totals) > ops.MASKED_LOGIT / 2
    assert [tuple(row) for row in np.asarray(lists)[alive].tolist()] == [e[0] for e in expected]
    np.testing.assert_allclose(np.asarray(totals)[alive], [e[1] for e in expected], rtol=1e-5)


def test_the_best_swaps_of_a_beam():
    children = {}
    for g, places, total in zip(GAINS[:2], LISTS[:2], TOTALS[:2], strict=True):
        logs = swap_log_probabilities(g, places, WHERE, RATES)
        for move in np.flatnonzero(logs > ops.MASKED_LOGIT / 2):
            made = tuple(np.asarray(swap(places, jnp.int32(move), 6)).tolist())
            children[made] = max(children.get(made, -np.inf), float(total + logs[move]))
    found = step_back(PERMUTATION, GAINS, LISTS, TOTALS, WHERE, RATES)
    assert_beam(found, best_of(children, 3))


def test_the_best_tokens_of_a_beam():
    """Of 2 parents' 5 * 4 lists without repeats each, a beam of 20 keeps the distinct ones."""
    width = 20
    pad = [(0, width - 3), (0, 0), (0, 0)]
    gains, lists = jnp.pad(GAINS, pad), jnp.pad(LISTS, pad[:2])
    totals = jnp.pad(TOTALS, pad[:1], constant_values=ops.MASKED_LOGIT)
    reached = []
    for g, places, total in zip(GAINS[:2], LISTS[:2], TOTALS[:2], strict=True):
        logs = np.asarray(token_log_probabilities(g, places, WHERE, RATES), np.float64)
        for made in permutations(np.flatnonzero(WHERE).tolist(), 2):
            value = float(total) + logs[0, made[0]] + logs[1, made[1]]
            reached.append((value, made))
    best = sorted(reached, reverse=True)[:width]
    distinct = {made: value for value, made in reversed(best)}
    assert width / 2 < len(distinct) < width < len(reached)
    found = step_back(TOKEN, gains, lists, totals, WHERE, RATES)
    assert_beam(found, best_of(distinct, width))


def test_a_narrow_beam_of_tokens_is_greedy():
    lists, totals = step_back(TOKEN, GAINS[:1], LISTS[:1], TOTALS[:1], WHERE, RATES)
    logs = np.asarray(token_log_probabilities(GAINS[0], LISTS[0], WHERE, RATES))
    first = int(logs[0].argmax())
    second = int(np.where(np.arange(6) == first, -np.inf, logs[1]).argmax())
    assert np.asarray(lists).tolist() == [[first, second]]
    expected = TOTALS[0] + logs[0, first] + logs[1, second]
    np.testing.assert_allclose(totals[0], expected, rtol=1e-5)


def make(process, **knobs):
    steps = {"betas": (0.2, 0.4), "condition_dropout": 0.0, "beam": 3}
    return ListDiffusion(PROCESSES[process], trunk=Trunk(**factories.SMALL), **(steps | knobs))


B, N, K = 16, 6, 2
ITEMS = jnp.asarray(RNG.normal(size=(B, N, 8)), jnp.float32)
REAL = jnp.ones((B, N), bool).at[0, 2:].set(False).at[1, 1:].set(False)
# The two items of highest first coordinate, in order, are liked; row 1 has one item alone.
GOOD = jnp.argsort(jnp.where(REAL, -ITEMS[..., 0], jnp.inf), axis=1)[:, :K].at[1, 1].set(-1)
START = jnp.argsort(jnp.where(REAL, ITEMS[..., 0], jnp.inf), axis=1)[:, :K].at[1, 1].set(-1)
START = START.astype(jnp.int32)


def loss(module, key, lists, condition):
    keys = jax.random.split(key, B)
    return module.loss(keys, ITEMS, REAL, lists, condition, drop=identity)


@cache
def taught(process):
    """Teach a denoiser that the good lists are liked, and every other list is not."""
    module = make(process)
    first = factories.quick_jit(nn.init(loss, module))
    liked = jnp.full((B, K), LIKED)
    params = first(jax.random.key(0), jax.random.key(0), GOOD.astype(jnp.int32), liked)
    optimizer = optax.adam(1e-2)

    def both(params, key):
        halves = jax.random.split(key)
        good = nn.apply(loss, module)(params, halves[0], GOOD.astype(jnp.int32), liked)
        return good + nn.apply(loss, module)(params, halves[1], START, 0 * liked)

    @factories.quick_jit
    def train(params):
        def update(state, key):
            value, slope = jax.value_and_grad(both)(state[0], key)
            updates, rest = optimizer.update(slope, state[1])
            return (optax.apply_updates(state[0], updates), rest), value

        keys = jax.random.split(jax.random.key(1), 300)
        return jax.lax.scan(update, (params, optimizer.init(params)), keys)

    (params, _), losses = train(params)
    return params, losses


@cache
def searched(process, beam):
    module = make(process, beam=beam)
    run = nn.apply(lambda m: m.search(ITEMS, REAL, START), module)
    return jax.tree.map(np.asarray, factories.quick_jit(run)(taught(process)[0]))


@pytest.mark.parametrize("process", PROCESSES)
def test_the_denoiser_learns(process):
    losses = np.asarray(taught(process)[1])
    assert losses[-30:].mean() < 0.7 * losses[:5].mean()


@pytest.mark.parametrize("process", PROCESSES)
def test_a_beam_finds_the_liked_lists(process):
    seen, real = searched(process, 3)
    assert seen.shape == (B, 1 + 2 * 3, K)
    np.testing.assert_array_equal(seen[:, 0], START)
    found = [
        (row[on] == good).all(axis=-1).any() for row, on, good in zip(seen, real, GOOD, strict=True)
    ]
    by_chance = [(good == start).all() for good, start in zip(GOOD, START, strict=True)]
    assert np.mean(by_chance) < 0.2
    assert np.mean(found) > 0.7


@pytest.mark.parametrize("process", PROCESSES)
def test_lists_seen_are_real_and_have_no_repeats(process):
    seen, real = searched(process, 3)
    assert not real.all()  # two candidates have two lists, one candidate has one
    for rows, on, where, start in zip(seen, real, np.asarray(REAL), np.asarray(START), strict=True):
        assert on[0]
        for row in rows[on]:
            np.testing.assert_array_equal(row < 0, start < 0)
            filled = row[row >= 0].tolist()
            assert len(set(filled)) == len(filled)
            assert where[filled].all()


@pytest.mark.parametrize("process", PROCESSES)
def test_empty_lists_drop_out_of_the_loss(process):
    params, liked = taught(process)[0], jnp.full((B, K), LIKED)

    @factories.quick_jit
    @jax.value_and_grad
    def run(params, lists):
        return nn.apply(loss, make(process))(params, jax.random.key(2), lists, liked)

    value, slope = run(params, jnp.full((B, K), -1))
    assert float(value) == 0
    assert all(bool((leaf == 0).all()) for leaf in jax.tree.leaves(slope))
