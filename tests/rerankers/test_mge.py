"""MG-E-style: the kernel, the sampled policy, the choice among generators, the stages."""

from functools import cache
from itertools import combinations, permutations

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax import types
from dnr_jax.nn.adapter import hide_padding, wrap
from dnr_jax.nn.dropout import identity
from dnr_jax.nn.list_evaluator import list_value
from dnr_jax.nn.lists import top_list
from dnr_jax.nn.matching import (
    MatchingGenerator,
    greedy_list,
    keep_best,
    sample_log_probability,
    sample_places,
)
from dnr_jax.nn.score_entry import ScoreUse
from dnr_jax.rerankers.mge import MGE, disagreement, mge, policy_loss
from dnr_jax.rerankers.prm import prm
from dnr_jax.rerankers.setrank import setrank

SIZES = {"width": 8, "layers": 1, "heads": 2, "feed_forward": 8, "history_layers": 1}
SCORES = {"score_entry": "concatenate", "score_place": "late"}
OWN = {"slate_size": 3, "utility_threshold": 1.0, "complement": 0.1, "samples": 3}
KNOBS = SIZES | SCORES | OWN | {"dropout": 0.1, "inducing": 3}
BATCH = factories.make_batch(seed=10)
WHERE = BATCH.request.where
RNG = np.random.default_rng(0)
USE = ScoreUse("concatenate", "late")
POOL = np.argsort(RNG.random((4, 5, 7)), axis=-1)[..., :3]
POOL[1, 2, 2] = POOL[2, 0] = -1  # a short list and an empty one
POOL = jnp.asarray(POOL, jnp.int32)


def make(**knobs):
    return mge(factories.make_spec(), **(KNOBS | knobs))


def module(complement):
    return MGE(factories.make_spec(), 8, 1, 2, 8, 1, 3, 3, 1.0, complement, 3, USE)


@cache
def parameters():
    model = make()
    shapes = jax.eval_shape(model.init, jax.random.key(0), BATCH.request, BATCH.scores)
    rng = np.random.default_rng(2)

    def draw(path, leaf):
        mean = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(mean + 0.4 * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def by_hand(first, second):
    """Delta of two lists: dictionaries of places, all pairs of the union, three possible orders."""
    first, second = ([int(i) for i in row if i >= 0] for row in (first, second))

    def order(row, i, j):
        place = {item: number for number, item in enumerate(row)}
        return np.sign(place.get(i, 99) - place.get(j, 99))

    pairs = list(combinations(sorted({*first, *second}), 2))
    differ = [order(first, *pair) != order(second, *pair) for pair in pairs]
    return np.mean(differ) if pairs else 0.0


def test_the_kernel_is_that_by_hand():
    found = disagreement(POOL, POOL[:, :3], 7)
    assert found.shape == (4, 5, 3)
    for b in range(4):
        expected = [[by_hand(x, y) for y in POOL[b, :3]] for x in POOL[b]]
        np.testing.assert_allclose(found[b], expected, rtol=1e-6)
    assert 0 < float(found.mean()) < 1


def test_the_kernel_is_symmetric_and_knows_its_ends():
    found = disagreement(POOL, POOL, 7)
    np.testing.assert_array_equal(found, jnp.swapaxes(found, 1, 2))
    np.testing.assert_array_equal(jnp.diagonal(found, axis1=1, axis2=2), 0.0)
    lists = jnp.array([[[0, 1, 2]]])
    others = jnp.array([[[0, 1, 2], [2, 1, 0], [3, 4, 5], [0, 2, 1], [-1, -1, -1]]])
    np.testing.assert_allclose(
        disagreement(lists, others, 7)[0, 0], [0.0, 1.0, 1.0, 1 / 3, 1.0], rtol=1e-6
    )


def test_the_gain_of_a_list_is_what_it_adds_to_the_complementarity():
    def complementarity(pool):
        return sum(by_hand(x, y) for x, y in combinations(pool, 2))

    for b in range(4):
        gain = complementarity(POOL[b]) - complementarity(POOL[b, :4])
        others = disagreement(POOL[b : b + 1, 4:], POOL[b : b + 1, :4], 7)
        np.testing.assert_allclose(others.mean() * 4, gain, rtol=1e-5)


MATRIX = jnp.asarray(RNG.normal(size=(2, 5, 3)), jnp.float32)
REAL = jnp.array([[True, True, False, True, True], [False, True, False, False, True]])


def test_the_probabilities_of_all_lists_sum_to_one():
    orders = jnp.asarray(list(permutations([0, 1, 3, 4], 3)), jnp.int32)
    logs = sample_log_probability(MATRIX[:1], REAL[:1], orders[None])[0]
    np.testing.assert_allclose(jnp.exp(logs).sum(), 1.0, rtol=1e-5)
    weights, expected = np.exp(np.asarray(MATRIX[0], np.float64)), []
    for order in np.asarray(orders):
        left, chance = [0, 1, 3, 4], 1.0
        for k, item in enumerate(order):
            chance *= weights[item, k] / weights[left, k].sum()
            left.remove(item)
        expected.append(np.log(chance))
    np.testing.assert_allclose(logs, expected, rtol=1e-4, atol=1e-5)
    short = jnp.array([[[1, 4, -1], [4, 1, -1]]])
    logs = sample_log_probability(MATRIX[1:], REAL[1:], short)
    np.testing.assert_allclose(jnp.exp(logs).sum(), 1.0, rtol=1e-5)


def test_lists_are_drawn_with_their_probabilities():
    keys = jax.random.split(jax.random.key(0), 2)
    drawn = sample_places(keys, MATRIX, REAL, count=4000)
    assert drawn.shape == (2, 4000, 3)
    found, counts = np.unique(np.asarray(drawn[0]), axis=0, return_counts=True)
    assert not np.isin(2, found)
    assert all(len(set(row)) == 3 for row in found)
    chances = jnp.exp(sample_log_probability(MATRIX[:1], REAL[:1], jnp.asarray(found)[None])[0])
    np.testing.assert_allclose(counts / 4000, chances, atol=0.03)
    assert set(map(tuple, np.asarray(drawn[1]))) == {(1, 4, -1), (4, 1, -1)}
    alone = sample_places(keys[1:], MATRIX[1:], REAL[1:], count=4000)
    np.testing.assert_array_equal(alone, drawn[1:])


def test_the_policy_moves_towards_lists_above_the_mean():
    rewards = jnp.array([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0], [9.0, 0.0, 0.0]])
    real = jnp.array([True, True, False])
    slope = jax.grad(policy_loss, argnums=1)(rewards, jnp.zeros((3, 3)), real)
    # -advantage / samples / real requests; equal rewards teach nothing.
    expected = np.array([[2.0, 1.0, -3.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]) / 3 / 2
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


@cache
def pieces():
    """Logits of each generator on its own, the lists they propose, and the evaluator's values."""
    spec, dropout = factories.make_spec(), {"dropout": 0.0}
    fixed = SIZES | SCORES | dropout
    generator = MatchingGenerator(spec, 8, 1, 2, 8, 1, 3, USE)
    models = {
        "prm": prm(spec, positions="none", causal=False, **fixed),
        "setrank": setrank(spec, attention="imsab", inducing=3, positions="none", **fixed),
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
        rewards = [
            module(beta).apply({"params": params}, BATCH, lists, method=MGE._rewards)
            for beta in (0.0, 0.7)
        ]
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
    rest = (np.asarray(shown) < 2) & np.asarray(WHERE)
    expected = jax.nn.sigmoid(whole)
    np.testing.assert_allclose(np.asarray(shown)[rest], np.asarray(expected)[rest], rtol=1e-4)


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
    _, lists, values, _, _, (plain, with_complement) = pieces()
    np.testing.assert_allclose(plain, values, rtol=1e-5)
    frozen = np.asarray(lists)[:, :2]
    apart = [
        [np.mean([by_hand(own, other) for other in others]) for own in rows]
        for rows, others in zip(np.asarray(lists), frozen, strict=True)
    ]
    assert np.max(apart) > 0
    np.testing.assert_allclose(with_complement, values + 0.7 * np.asarray(apart), rtol=1e-4)


def test_each_stage_moves_its_own_groups_alone():
    model = make()
    names = ("evaluator", "generators", "complement")
    groups = (("evaluator",), ("prm", "setrank", "matching"), ("matching",))

    @factories.quick_jit
    def slopes(params):
        return [jax.grad(stage.loss)(params, BATCH) for stage in model.stages]

    assert tuple(stage.name for stage in model.stages) == names
    assert model.needs_slate
    for stage, own, slope in zip(model.stages, groups, slopes(parameters()), strict=True):
        assert stage.groups == own
        for group, leaves in slope.items():
            moved = any(bool((leaf != 0).any()) for leaf in jax.tree.leaves(leaves))
            assert moved == (group in own), (stage.name, group)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"heads": 3}, "width 8 is not a multiple of heads 3"),
        ({"inducing": 0}, "inducing 0"),
        ({"samples": 1}, "samples 1 must be at least 2"),
        ({"complement": -0.1}, "complement -0.1 must be at least 0"),
        ({"dropout": 1.0}, "dropout 1.0 is outside"),
        ({"score_entry": "sum"}, "score entry 'sum' is unknown: choose one of"),
    ],
)
def test_bad_knobs_are_named(knobs, message):
    with pytest.raises(ValueError, match=message):
        make(**knobs)
