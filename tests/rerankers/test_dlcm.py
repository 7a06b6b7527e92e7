"""DLCM's own properties: which order the GRU reads, and what its loss asks for."""

from functools import cache

import factories
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax import types
from dnr_jax.rerankers import build
from dnr_jax.rerankers.dlcm import lowest_first

KNOBS = factories.SMALL | {"score_entry": "none"}
BATCH = factories.make_batch(seed=3)
FULL = factories.make_full_batch()


def make(**knobs):
    return build("dlcm", factories.make_task(), **(KNOBS | knobs))


@cache
def parameters():
    return factories.random_params(make(), FULL)


@cache
def compiled():
    model = make()
    return factories.quick_jit(
        lambda params, request, scores: types.apply(model, params, request, scores)
    )


def score(request, scores, **groups):
    """Compute the logits of a DLCM of random parameters, some groups of them replaced."""
    return compiled()(parameters() | groups, request, scores)


def swap(array, i, j):
    return array.at[:, [i, j]].set(array[:, [j, i]])


def test_the_order_is_rising_and_padding_is_last():
    where = jnp.array([[True, False, True, True, False, True], [False] * 6])
    scores = jnp.array([[0.5, 0.0, 0.1, 0.9, 0.3, 0.2], [0.0] * 6])
    order = np.asarray(lowest_first(scores, where))
    np.testing.assert_array_equal(order[0, :4], [2, 5, 0, 3])
    np.testing.assert_array_equal(np.sort(order), [range(6)] * 2)


def test_the_order_of_the_scores_is_read_and_nothing_else_of_them():
    base = score(FULL.request, FULL.scores)
    np.testing.assert_allclose(base, score(FULL.request, FULL.scores**2), rtol=1e-5, atol=1e-6)
    others = np.asarray(score(FULL.request, swap(FULL.scores, 0, 1)) - base)[:, 2:]
    assert np.abs(others).max(axis=1).min() > 1e-4


def test_storage_order_is_not_read_when_scores_move_along():
    moved = FULL.request.replace(candidates=swap(FULL.request.candidates, 0, 5))
    np.testing.assert_allclose(
        swap(score(moved, swap(FULL.scores, 0, 5)), 0, 5),
        score(FULL.request, FULL.scores),
        rtol=1e-4,
        atol=1e-5,
    )


def test_masked_candidates_are_as_good_as_absent():
    where = jnp.ones_like(FULL.request.where).at[:, [0, 3, 6]].set(False)
    kept = np.array([1, 2, 4, 5, 7])
    short = FULL.request.replace(where=where[:, kept], candidates=FULL.request.candidates[:, kept])
    np.testing.assert_allclose(
        score(FULL.request.replace(where=where), FULL.scores)[:, kept],
        score(short, FULL.scores[:, kept]),
        rtol=1e-4,
        atol=1e-5,
    )


def test_the_states_before_the_best_candidate_do_not_know_it():
    # Through the context everybody knows it, so the context is cut: tanh(1) for any s.
    cut = {"bias": jnp.ones(8), "kernel": jnp.zeros((8, 8))}
    best, rows = FULL.scores.argmax(axis=1), jnp.arange(6)
    changed = FULL.request.replace(
        candidates=FULL.request.candidates.at[rows, best].set(jnp.array([1, 1]))
    )
    before, after = (score(r, FULL.scores, context=cut) for r in (FULL.request, changed))
    moved = ~np.isclose(before, after, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(moved, np.arange(8) == np.asarray(best)[:, None])


def test_its_loss_is_the_cross_entropy_with_the_mean_of_the_positives():
    loss = factories.quick_jit(make().stages[0].loss)(parameters(), BATCH)
    logits = np.asarray(score(BATCH.request, BATCH.scores), np.float64)
    expected = []
    for row, real, z in zip(logits, BATCH.request.where, BATCH.labels, strict=True):
        real, clicked = np.asarray(real), np.asarray(z) > 0
        if clicked.any():
            expected.append(np.log(np.exp(row[real]).sum()) - row[clicked].mean())
    assert 0 < len(expected) < len(logits)
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"heads": 3}, "width is 8, which 3 heads cannot share"),
        ({"history_layers": 0}, "history_layers is 0: it must be 1 or more"),
        ({"dropout": 1.0}, "dropout is 1.0: it must be 0 or more and below 1"),
        ({"score_entry": "concat"}, "score_entry is 'concat': it must be one of none"),
    ],
)
def test_bad_knobs_are_named(knobs, message):
    with pytest.raises(ValueError, match=message):
        make(**knobs)
