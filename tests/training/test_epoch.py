"""The epoch program: its turns, and that scanning and seeds change no number."""

import chex
import jax
import numpy as np
import pytest
import toy_players
from hypothesis import given, settings
from hypothesis import strategies as st

from dnr_jax.data import loader
from dnr_jax.training.epoch import (
    NonFiniteError,
    alternate,
    check_finite,
    epoch_means,
    make_epoch,
    rows_of_epoch,
    stack_states,
)
from dnr_jax.training.optimizers import GENERATOR, RERANKER
from dnr_jax.training.step import GENERATOR_TERMS, RERANKER_TERMS, make_step

STEP = make_step(toy_players.GAME, toy_players.OPTIMIZER, plays=True)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(0, 3), st.integers(1, 4))
def test_every_batch_trains_the_reranker_once_in_order(batches, generator, reranker):
    plan = alternate(batches, generator_updates=generator, reranker_updates=reranker)
    assert list(plan.batches[plan.turns == RERANKER]) == list(range(batches))
    groups = -(-batches // reranker)
    assert np.sum(plan.turns == GENERATOR) == groups * generator


def test_the_players_alternate():
    plan = alternate(4, generator_updates=1, reranker_updates=2)
    assert plan.turns.tolist() == [GENERATOR, RERANKER, RERANKER] * 2
    assert plan.batches.tolist() == [0, 0, 1, 2, 2, 3]


def test_scan_equals_a_loop_of_steps_and_seeds_do_not_mix():
    data, plan, seeds = (
        toy_players.batch(13),
        alternate(4, generator_updates=1, reranker_updates=1),
        [3, 8],
    )
    rows = rows_of_epoch(13, 4, plan, seeds=seeds, epoch=2)
    step = jax.jit(STEP)
    singles = []
    for number, seed in enumerate(seeds):
        state = toy_players.state(seed)
        for taken, turn in zip(rows[number], plan.turns, strict=True):
            state, _ = step(state, loader.take(data, taken), turn)
        singles.append(state)
    for axis in ("vmap", "map"):
        start = stack_states([toy_players.state(seed) for seed in seeds])
        states, terms = make_epoch(STEP, seeds=axis)(start, data, rows, plan.turns)
        chex.assert_trees_all_close(states.params, stack_states(singles).params, rtol=1e-5)
        chex.assert_shape(list(terms.values()), (2, len(plan.turns)))


def test_rows_are_a_shuffle_of_their_own_for_each_seed():
    plan = alternate(5, generator_updates=0, reranker_updates=1)
    rows = rows_of_epoch(17, 4, plan, seeds=[0, 1], epoch=0)
    for seed_rows in rows:
        assert sorted(seed_rows.ravel()) == [loader.PADDING_ROW] * 3 + list(range(17))
    assert not np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[1], rows_of_epoch(17, 4, plan, seeds=[1], epoch=0)[0])


def test_an_unknown_seed_axis_is_refused():
    with pytest.raises(ValueError, match="seeds is 'pmap': choose one of"):
        make_epoch(STEP, seeds="pmap")


def _terms():
    names = RERANKER_TERMS + GENERATOR_TERMS
    return {name: np.arange(8, dtype=np.float32).reshape(2, 4) for name in names}


def test_means_are_over_the_player_s_own_turns():
    turns = np.array([GENERATOR, RERANKER, GENERATOR, RERANKER])
    means = epoch_means(_terms(), turns)
    np.testing.assert_array_equal(means["direct"], [2.0, 6.0])
    np.testing.assert_array_equal(means["regulariser"], [1.0, 5.0])
    assert set(epoch_means(_terms(), np.full(4, RERANKER))) == set(RERANKER_TERMS)


def test_a_non_finite_term_is_named_with_its_step():
    terms = _terms()
    check_finite(terms, first_step=0, seeds=[5, 6])
    terms["regulariser"][1, 2] = np.nan
    terms["direct"][0, 3] = np.inf
    with pytest.raises(NonFiniteError, match=r"'regulariser' is not finite at step 102 \(seed 6\)"):
        check_finite(terms, first_step=100, seeds=[5, 6])


def test_an_epoch_neither_fetches_from_the_host_nor_calls_it():
    data, plan = toy_players.batch(13), alternate(4, generator_updates=1, reranker_updates=1)
    epoch = make_epoch(STEP, seeds="map")
    rows = rows_of_epoch(13, 4, plan, seeds=[0, 1], epoch=0)
    states = stack_states([toy_players.state(seed) for seed in (0, 1)])
    given = jax.device_put((data, rows, plan.turns))
    with jax.transfer_guard("disallow"):
        states, _ = epoch(states, *given)
        states, _ = epoch(states, *given)
    with (
        pytest.raises(Exception, match="Disallowed host-to-device"),
        jax.transfer_guard("disallow"),
    ):
        epoch(states, data, rows, plan.turns)  # NumPy arrays would be copied
    program = epoch.lower(states, *given).as_text()
    assert not any(word in program for word in ("callback", "infeed", "outfeed", "send", "recv"))
