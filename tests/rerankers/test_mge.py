"""MG-E-style: the choice among generators, the reward of the last one, the stages."""

from functools import cache
from itertools import combinations

import factories
import jax.numpy as jnp
import numpy as np
import pytest
from slow_lists import disagreement_by_hand

from dnr_jax import types
from dnr_jax.nn.adapter import hide_padding, wrap
from dnr_jax.nn.dropout import identity
from dnr_jax.nn.list_evaluator import list_value
from dnr_jax.nn.slates import keep_best, top_list
from dnr_jax.nn.trunk import Trunk
from dnr_jax.rerankers import RERANKERS
from dnr_jax.rerankers.mge import MGE, MGESettings, mge
from dnr_jax.rerankers.mge.sampling import greedy_list
from dnr_jax.rerankers.nar4rec.matching import MatchingGenerator
from dnr_jax.rerankers.prm import PRMSettings, prm
from dnr_jax.rerankers.setrank import SetRankSettings, setrank

KNOBS = factories.SMALL | {"inducing": 3, "utility_threshold": 1.0, "complement": 0.1, "samples": 3}
BATCH = factories.make_batch(seed=10)
WHERE = BATCH.request.where
TASK = factories.make_task()


def make(**knobs):
    return mge(TASK, MGESettings(**(KNOBS | knobs)))


def module(complement):
    return MGE(TASK.spec, MGESettings(**(KNOBS | {"complement": complement})), TASK.slate_size)


@cache
def parameters():
    return factories.random_params(make(), BATCH, scale=0.4, seed=2)


@cache
def pieces():
    """Logits of each generator on its own, the lists they propose, and the evaluator's values."""
    trunk = Trunk(**(factories.SMALL | {"dropout": 0.0}))
    generator = MatchingGenerator(TASK.spec, trunk, TASK.slate_size)
    models = {
        "prm": prm(TASK, PRMSettings.on(trunk, positions="none", causal=False)),
        "setrank": setrank(
            TASK, SetRankSettings.on(trunk, attention="imsab", inducing=3, positions="none")
        ),
        "matching": wrap(generator, dropout=0.0),
    }
    request, scores = hide_padding(BATCH.request), BATCH.scores

    def match(module):
        memory = module.encode(request, drop=identity)
        return module.match(memory, scores, WHERE, drop=identity)[1]

    def value(module, lists):
        items = module.evaluator.read(request, drop=identity)
        return list_value(module.evaluator(items, lists, drop=identity), lists)

    @factories.quick_jit
    def run(params):
        logits = [types.apply(m, params[name], request, scores) for name, m in models.items()]
        matrix = generator.apply({"params": params["matching"]}, method=match)
        lists = [top_list(row, WHERE, 3) for row in logits[:2]] + [greedy_list(matrix, WHERE)]
        lists = jnp.stack(lists, axis=1)
        values = module(0.1).apply({"params": params}, lists, method=value)
        whole = types.apply(make(), params, BATCH.request, scores)
        shown = types.rank(make(), params, BATCH.request, scores)
        rewards = module(0.1).apply({"params": params}, BATCH, lists, method=MGE._rewards)
        return logits, lists, values, whole, shown, rewards

    return run(parameters())


def test_the_scorer_is_the_mean_of_three_generators():
    logits, _, _, whole, _, _ = pieces()
    for i, j in combinations(range(3), 2):
        assert float(jnp.abs(logits[i] - logits[j]).max()) > 1e-2
    expected = np.mean([np.asarray(row, np.float64) for row in logits], axis=0)
    np.testing.assert_allclose(
        np.asarray(whole)[WHERE], expected[np.asarray(WHERE)], rtol=1e-4, atol=1e-5
    )


def test_the_evaluator_shows_the_best_proposal():
    _, lists, values, whole, shown, _ = pieces()
    winners = np.asarray(values).argmax(axis=1)
    assert len(set(winners)) > 1
    for b, winner in enumerate(winners):
        best = [i for i in np.asarray(lists[b, winner]) if i >= 0]
        np.testing.assert_array_equal(np.argsort(-np.asarray(shown[b]))[: len(best)], best)
    factories.assert_others_follow(shown, whole, WHERE)


def test_more_generators_never_lower_the_best_value():
    _, lists, values, _, _, _ = pieces()
    np.testing.assert_array_equal(keep_best(lists[:, :1], values[:, :1]), lists[:, 0])
    kept = []
    for m in (1, 2, 3):
        chosen = keep_best(lists[:, :m], values[:, :m])
        same = (lists == chosen[:, None]).all(axis=-1)
        kept.append(jnp.where(same, values, -jnp.inf).max(axis=1))
    assert bool((kept[1] >= kept[0]).all())
    assert bool((kept[2] >= kept[1]).all())
    assert float((kept[2] - kept[0]).max()) > 0


def test_the_reward_is_the_value_and_the_difference_from_the_frozen_lists():
    _, lists, values, _, _, rewards = pieces()
    frozen = np.asarray(lists)[:, :2]
    apart = [
        [np.mean([disagreement_by_hand(own, other) for other in others]) for own in rows]
        for rows, others in zip(np.asarray(lists), frozen, strict=True)
    ]
    assert np.max(apart) > 0
    np.testing.assert_allclose(rewards, values + np.asarray(apart), rtol=1e-4)


def test_complement_weighs_the_rewarded_lists_against_the_preference():
    @factories.quick_jit
    def losses(params):
        return [make(complement=beta).stages[2].loss(params, BATCH) for beta in (0.0, 1.0, 3.0)]

    preference, one, three = losses(parameters())
    plain = np.asarray(pieces()[0][2], np.float64)
    expected = np.log1p(np.exp(plain)) - np.asarray(BATCH.labels) * plain
    np.testing.assert_allclose(preference, expected[np.asarray(WHERE)].mean(), rtol=1e-5)
    assert abs(one - preference) > 1e-3
    np.testing.assert_allclose(three - preference, 3 * (one - preference), rtol=1e-3)


def test_the_generators_are_trained_after_the_evaluator():
    groups = [("evaluator",), ("prm", "setrank", "matching"), ("matching",)]
    assert {group for own in groups for group in own} == set(parameters())
    assert [stage.name for stage in make().stages] == ["evaluator", "generators", "complement"]
    assert [stage.groups for stage in make().stages] == groups
    assert RERANKERS["mge"].needs_slate


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"inducing": 0}, "inducing is 0: it must be 1 or more"),
        ({"samples": 1}, "samples is 1: it must be 2 or more"),
        ({"complement": -0.1}, "complement is -0.1: it must be 0 or more"),
    ],
)
def test_bad_knobs_are_named(knobs, message):
    with pytest.raises(ValueError, match=message):
        make(**knobs)
