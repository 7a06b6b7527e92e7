"""NAR4Rec: softmax over items, likelihood and unlikelihood, contrastive decoding, its stages."""

from functools import cache

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax import types
from dnr_jax.nn.adapter import hide_padding, wrap
from dnr_jax.nn.dropout import identity
from dnr_jax.nn.list_evaluator import list_value
from dnr_jax.nn.slates import keep_best
from dnr_jax.rerankers import RERANKERS
from dnr_jax.rerankers.nar4rec import (
    MARGIN,
    PENALTIES,
    NAR4Rec,
    NAR4RecSettings,
    contrastive_lists,
    contrastive_loss,
    nar4rec,
)
from dnr_jax.rerankers.nar4rec.matching import (
    MatchingGenerator,
    fill_places,
    matching_loss,
    mean_over_places,
    place_margins,
)

TASK = factories.make_task()
SETTINGS = NAR4RecSettings(**factories.SMALL, utility_threshold=1.0)
BATCH = factories.make_batch(seed=10)
WHERE = BATCH.request.where
RNG = np.random.default_rng(0)
MATRIX = jnp.asarray(RNG.normal(size=(6, 8, 3)), jnp.float32)
STATES = jnp.asarray(RNG.normal(size=(6, 8, 4)), jnp.float32)


def make():
    return nar4rec(TASK, SETTINGS)


@cache
def parameters():
    return factories.quick_jit(make().init)(jax.random.key(0), BATCH.request, BATCH.scores)


@cache
def parts():
    """Compile `(params, request, scores) -> X, M, evaluator's states` of the module."""
    module = NAR4Rec(TASK.spec, SETTINGS, TASK.slate_size)

    def read(module, request, scores):
        memory, items = module.encode(hide_padding(request), drop=identity)
        found = module.generator.match(memory, scores, request.where, drop=identity)
        lists = contrastive_lists(found[1], found[0], request.where)
        return *found, lists, list_value(module.evaluator(items, lists, drop=identity), lists)

    return factories.quick_jit(
        lambda params, *rest: module.apply({"params": params}, *rest, method=read)
    )


def chances(matrix, real):
    """Softmax over the real items, place by place, in float64."""
    raised = np.exp(np.asarray(matrix, np.float64)) * np.asarray(real)[:, None]
    return raised / raised.sum(axis=0, keepdims=True)


def test_each_place_has_a_softmax_over_the_items():
    _, matrix, _, _ = parts()(parameters(), BATCH.request, BATCH.scores)
    for row, real, slate in zip(matrix, WHERE, BATCH.slate, strict=True):
        p = chances(row, real)
        np.testing.assert_allclose(p.sum(axis=0), 1.0)
        assert np.all(p[~np.asarray(real)] == 0)
        margins, _ = place_margins(row[None], real[None], slate[None])
        for k, item in enumerate(slate):
            if item >= 0 and real.sum() > 1:
                expected = np.log(p[item, k]) - np.log1p(-p[item, k])
                np.testing.assert_allclose(margins[0, k], expected, rtol=1e-4, atol=1e-5)


def test_moving_the_candidates_moves_the_rows_of_the_matrix():
    order = RNG.permutation(8)
    request = BATCH.request.replace(
        candidates=BATCH.request.candidates[:, order], where=WHERE[:, order]
    )
    _, base, _, _ = parts()(parameters(), BATCH.request, BATCH.scores)
    _, moved, _, _ = parts()(parameters(), request, BATCH.scores[:, order])
    np.testing.assert_allclose(
        np.asarray(moved)[WHERE[:, order]], base[:, order][WHERE[:, order]], rtol=1e-4, atol=1e-5
    )
    spread = np.asarray(base)[WHERE].std(axis=1)
    assert spread.min() > 1e-3  # places differ


def test_late_scores_shift_all_places_of_a_candidate_alike():
    _, base, _, _ = parts()(parameters(), BATCH.request, BATCH.scores)
    _, other, _, _ = parts()(parameters(), BATCH.request, BATCH.scores / 2)
    shift = np.asarray(other - base)[WHERE]
    assert np.abs(shift).max() > 1e-3
    np.testing.assert_allclose(shift - shift[:, :1], 0.0, atol=1e-5)


def test_the_logits_are_the_mean_over_places_of_the_generator_alone():
    generator = MatchingGenerator(TASK.spec, SETTINGS, TASK.slate_size)
    run = factories.quick_jit(
        lambda model, params: types.apply(model, params, BATCH.request, BATCH.scores),
        static_argnums=0,
    )
    logits = run(make(), parameters())
    np.testing.assert_allclose(
        logits, run(wrap(generator, dropout=0.0), parameters()["generator"]), rtol=1e-5, atol=1e-6
    )
    _, matrix, _, _ = parts()(parameters(), BATCH.request, BATCH.scores)
    expected = np.log(np.exp(np.asarray(matrix, np.float64)).mean(axis=-1))
    np.testing.assert_allclose(np.asarray(logits)[WHERE], expected[WHERE], rtol=1e-4, atol=1e-5)


def odd_batch():
    """Full rows but for: 1 with a hole, 2 with one candidate, 3 without a list, 4 unjudged."""
    where = np.ones((6, 8), bool)
    where[2, 1:] = False
    slate = np.argsort(RNG.random((6, 8)), axis=1)[:, :3]
    slate[1, 1], slate[2], slate[3] = -1, [0, -1, -1], -1
    weights = np.where(where, RNG.uniform(0.5, 2.0, (6, 8)), 0.0)
    weights[4] = 0.0
    labels = (RNG.random((6, 8)) < 0.5) * where
    return BATCH.replace(
        request=BATCH.request.replace(where=jnp.asarray(where)),
        slate=jnp.asarray(slate, jnp.int32),
        labels=jnp.asarray(labels, jnp.float32),
        weights=jnp.asarray(weights, jnp.float32),
    )


@pytest.mark.parametrize("threshold", [0.0, 1.0, 2.0, 9.0])
def test_good_lists_are_made_likely_and_others_unlikely(threshold):
    batch, total, count = odd_batch(), 0.0, 0.0
    for b in (0, 1, 4, 5):  # row 2 has no choice, row 3 no list
        p = chances(MATRIX[b], batch.request.where[b])
        shown = [(k, i) for k, i in enumerate(np.asarray(batch.slate[b])) if i >= 0]
        utility = sum(batch.labels[b, i] for _, i in shown)
        for k, i in shown:
            w = float(batch.weights[b, i])
            total -= w * np.log(p[i, k] if utility >= threshold else 1 - p[i, k])
            count += w
    loss, slope = jax.value_and_grad(matching_loss)(MATRIX, batch, threshold=threshold)
    np.testing.assert_allclose(loss, total / count, rtol=1e-5)
    assert bool(jnp.isfinite(slope).all())
    assert np.all(np.asarray(slope)[[2, 3, 4]] == 0)


def test_the_unlikelihood_falls_with_the_chance_of_a_bad_list():
    batch = odd_batch()

    def loss(height):
        shown = batch.slate[:, None, :] == jnp.arange(8)[None, :, None]
        return matching_loss(MATRIX + height * shown, batch, threshold=9.0)

    losses = [float(loss(height)) for height in (2.0, 0.0, -2.0, -4.0)]
    assert losses == sorted(losses, reverse=True)
    # Where a bad list is certain in float32, the loss is right and pushes at full strength.
    np.testing.assert_allclose(loss(30.0) - loss(20.0), 10.0, rtol=1e-4)
    np.testing.assert_allclose(jax.grad(loss)(30.0), 1.0, rtol=1e-5)


def slow_lists(p, items, real, penalty):
    """Contrastive decoding by hand."""
    unit = items / np.linalg.norm(items, axis=-1, keepdims=True)
    chosen = []
    for k in range(p.shape[1]):
        values = {}
        for i in np.flatnonzero(real):
            if i not in chosen:
                worst = max((float(unit[i] @ unit[j]) for j in chosen), default=0.0)
                values[i] = (1 - penalty) * p[i, k] - penalty * worst
        chosen.append(max(values, key=values.get) if values else -1)
    return chosen


def test_contrastive_decoding_is_that_by_hand():
    lists = np.asarray(contrastive_lists(MATRIX, STATES, WHERE))
    assert lists.shape == (6, 4, 3)
    assert len({tuple(row.ravel()) for row in np.moveaxis(lists, 1, 0)}) > 1
    assert (np.asarray(WHERE).sum(axis=1) < 3).any()  # so that some lists run out
    for b in range(6):
        p = chances(MATRIX[b], WHERE[b])
        for a, penalty in enumerate(PENALTIES):
            expected = slow_lists(p, np.asarray(STATES[b], np.float64), WHERE[b], penalty)
            np.testing.assert_array_equal(lists[b, a], expected)


def test_without_a_penalty_it_is_greedy_on_the_matrix():
    found = contrastive_lists(MATRIX, STATES, WHERE)[:, PENALTIES.index(0.0)]
    # A place's softmax keeps the order of its column.
    np.testing.assert_array_equal(
        found, fill_places(MATRIX, jnp.zeros((*WHERE.shape, WHERE.shape[1])), WHERE)
    )


def test_a_penalty_picks_the_dissimilar_item():
    matrix = jnp.log(jnp.array([[[0.5, 0.1], [0.3, 0.5], [0.2, 0.4]]]))
    states = jnp.array([[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]])
    lists = contrastive_lists(matrix, states, jnp.ones((1, 3), bool))[0]
    np.testing.assert_array_equal(lists[0], [0, 1])  # twins
    np.testing.assert_array_equal(lists[-1], [0, 2])


def test_the_contrastive_loss_is_the_mean_over_pairs():
    total, count = 0.0, 0
    for states, real in zip(np.asarray(STATES, np.float64), WHERE, strict=True):
        unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
        for i in np.flatnonzero(real):
            for j in np.flatnonzero(real):
                if i != j:
                    total += max(0.0, MARGIN - 1.0 + unit[i] @ unit[j])
                    count += 1
    np.testing.assert_allclose(contrastive_loss(STATES, WHERE), total / count, rtol=1e-5)
    slope = jax.grad(contrastive_loss)(jnp.zeros_like(STATES), WHERE)
    assert bool(jnp.isfinite(slope).all())
    assert float(contrastive_loss(STATES, jnp.zeros_like(WHERE))) == 0


def test_the_evaluator_keeps_the_best_list():
    _, matrix, lists, values = parts()(parameters(), BATCH.request, BATCH.scores)
    # Random evaluators hardly tell lists apart, but they do.
    assert len(np.unique(np.asarray(lists).reshape(-1, 3), axis=0)) > 6
    order = factories.quick_jit(lambda p: types.rank(make(), p, BATCH.request, BATCH.scores))(
        parameters()
    )
    for row, proposed, value, real in zip(
        np.asarray(order), np.asarray(lists), values, WHERE, strict=True
    ):
        shown = np.argsort(-row)[: min(3, int(real.sum()))]
        best = float(value.max())
        winners = [list(p[p >= 0]) for p, v in zip(proposed, value, strict=True) if v > best - 1e-6]
        assert list(shown) in winners
    factories.assert_others_follow(order, mean_over_places(matrix), WHERE)


def test_the_first_of_equal_lists_is_kept():
    lists = jnp.arange(12, dtype=jnp.int32).reshape(2, 3, 2)
    best = keep_best(lists, jnp.array([[0.0, 1.0, 1.0], [2.0, -1.0, 0.0]]))
    np.testing.assert_array_equal(best, [[2, 3], [6, 7]])


def test_the_evaluator_is_trained_first():
    assert [stage.groups for stage in make().stages] == [("evaluator",), ("generator",)]
    assert RERANKERS["nar4rec"].needs_slate


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"contrast is -0\.1: it must be 0 or more"):
        NAR4RecSettings(contrast=-0.1)
