"""GloRank: the law of the lists it writes, by enumeration, and what each stage learns from."""

from functools import cache
from itertools import permutations

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_contract import CASES, model_of

from dnr_jax import ops
from dnr_jax.nn.dropout import identity
from dnr_jax.nn.list_evaluator import ListEvaluator, list_value
from dnr_jax.nn.policy_gradient import standardise
from dnr_jax.nn.trunk import Trunk
from dnr_jax.rerankers import build
from dnr_jax.rerankers.glorank import REINFORCEMENT_WEIGHT, best_first
from dnr_jax.rerankers.glorank.generator import Scene, TokenGenerator
from dnr_jax.rerankers.glorank.semantic_ids import semantic_ids

CODES, SIZE = 3, 3
GROUP = CASES["glorank"].knobs["group_size"]
VECTORS = factories.make_task().item_vectors
TABLE = semantic_ids(VECTORS, codes=CODES, levels=2, seed=0)
TRUNK = Trunk(**factories.SMALL)


def generator():
    return TokenGenerator(factories.make_spec(), TRUNK, SIZE, TABLE, CODES)


def make_scene(seed=0, codes=None):
    """Draw five candidates, of which four are real, for two requests."""
    draw = np.random.default_rng(seed)
    where = jnp.array([[True, True, False, True, True], [True, False, True, False, False]])
    if codes is None:
        codes = np.stack([TABLE[draw.permutation(np.arange(2, 40))[:5]] for _ in range(2)])
    floats = (jnp.asarray(draw.normal(size=s), jnp.float32) for s in ((2, 8), (2, 5, 8), (2, 5)))
    user, items, bias = floats
    return Scene(user, items, jnp.asarray(codes), bias, where)


def run(method, *args, params=None, **keywords):
    own = weights()["generator"] if params is None else params
    return generator().apply({"params": own}, *args, **keywords, method=method)


def weights():
    return model_of("glorank").params


log_probability = factories.quick_jit(
    lambda scene, lists, own: run(
        TokenGenerator.log_probability, scene, lists, drop=identity, params=own
    )
)


def every_list(real, size=SIZE):
    items = np.flatnonzero(real)
    return np.array([order for order in permutations(items, size)], np.int32)


def silent():
    """Parameters under which t is 0."""
    own = dict(weights()["generator"])
    return own | {"codes": jnp.zeros_like(own["codes"])}


def test_chances_of_all_lists_add_up_to_one():
    scene = make_scene()
    lists = jnp.broadcast_to(jnp.asarray(every_list(scene.where[0]))[None], (2, 24, SIZE))
    found = log_probability(scene, lists, weights()["generator"])[0].sum(axis=-1)
    chances = np.exp(np.asarray(found, np.float64))
    np.testing.assert_allclose(chances.sum(), 1.0, rtol=1e-5)
    assert chances.max() > 1.2 * chances.min()


@pytest.mark.parametrize("twins", [False, True])
def test_without_t_lists_are_drawn_without_replacement_by_the_softmax_of_b(twins):
    codes = np.asarray(make_scene().codes).copy()
    if twins:
        codes[:, 3] = codes[:, 0]
    scene = make_scene(codes=codes)
    lists = every_list(scene.where[0])
    own = jnp.broadcast_to(jnp.asarray(lists)[None], (2, *lists.shape))
    found = log_probability(scene, own, silent())[0]
    powers = np.exp(np.asarray(scene.bias[0], np.float64)) * np.asarray(scene.where[0])
    for row, order in zip(np.asarray(found), lists, strict=True):
        left, expected = powers.copy(), []
        for item in order:
            expected.append(np.log(left[item] / left.sum()))
            left[item] = 0.0
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)


def test_one_code_at_a_time_by_hand():
    """The chance of the first item is the product over its codes, among those possible."""
    scene = make_scene()
    own = weights()["generator"]
    empty = jnp.full((2, 1, SIZE), -1, jnp.int32)
    places = factories.quick_jit(lambda: run(TokenGenerator._places, scene, empty, drop=identity))
    here = places()[0, 0, 0]

    def reads(module, x):
        return module.reader(x, drop=identity)

    read = factories.quick_jit(lambda x: run(reads, x))
    vectors, codes = np.asarray(own["codes"]), np.asarray(scene.codes[0])
    real = np.asarray(scene.where[0])
    powers = np.exp(np.asarray(scene.bias[0], np.float64))
    for item in np.flatnonzero(real):
        under, prefix, expected = real.copy(), 0.0, 0.0
        for level in range(codes.shape[1]):
            x = here + prefix + own["levels"][level]
            t = vectors[level] @ np.asarray(read(x)) / np.sqrt(8)
            power = {
                c: np.exp(t[c]) * powers[under & (codes[:, level] == c)].sum() for c in range(CODES)
            }
            expected += np.log(power[codes[item, level]] / sum(power.values()))
            prefix = prefix + vectors[level][codes[item, level]]
            under = under & (codes[:, level] == codes[item, level])
        lists = jnp.full((2, 1, SIZE), -1, jnp.int32).at[0, 0, 0].set(item)
        np.testing.assert_allclose(
            log_probability(scene, lists, own)[0, 0], [expected, 0, 0], rtol=1e-4, atol=1e-5
        )


@cache
def written(count=20_000):
    scene = make_scene()
    luck = jax.random.uniform(jax.random.key(0), (2, count, SIZE, TABLE.shape[1] + 1))
    own = factories.quick_jit(lambda luck: run(TokenGenerator.write, scene, luck, group=count))
    return np.asarray(own(luck))


def test_lists_are_written_as_often_as_their_chance_says():
    scene, count = make_scene(), 20_000
    lists = every_list(scene.where[0])
    own = jnp.broadcast_to(jnp.asarray(lists)[None], (2, *lists.shape))
    chances = np.exp(log_probability(scene, own, weights()["generator"])[0].sum(axis=-1))
    shares = np.array([(written()[0] == order).all(axis=-1).mean() for order in lists])
    np.testing.assert_allclose(shares.sum(), 1.0)
    assert np.all(abs(shares - chances) <= 5 * np.sqrt(chances * (1 - chances) / count))


def test_a_short_request_gives_all_that_it_has_once_and_then_nothing():
    found = written()[1]
    assert {tuple(row) for row in found} == {(0, 2, -1), (2, 0, -1)}


def test_the_shown_list_takes_the_likeliest_code_each_time():
    scene = make_scene()
    found = factories.quick_jit(lambda: run(TokenGenerator.write, scene, None, group=1))()[0, 0]
    left, order = np.asarray(scene.where[0]).copy(), []
    for place in range(SIZE):
        chances = {}
        for item in np.flatnonzero(left):
            lists = np.full((2, 1, SIZE), -1, np.int32)
            lists[0, 0, : place + 1] = [*order, item]
            now = log_probability(scene, jnp.asarray(lists), weights()["generator"])
            chances[item] = np.exp(float(now[0, 0, place]))
        codes, under = np.asarray(scene.codes[0]), list(chances)
        for level in range(codes.shape[1]):
            power = {
                c: sum(chances[i] for i in under if codes[i, level] == c) for c in range(CODES)
            }
            best = max(power, key=power.get)
            under = [i for i in under if codes[i, level] == best]
        order.append(under[0])
        left[under[0]] = False
    np.testing.assert_array_equal(found, order)


def test_as_a_scorer_it_is_b_and_t_of_the_first_place():
    """Softmax over all t + b is not the law of the codes; for one level of codes it is."""
    table = np.arange(factories.SIZES["item"], dtype=np.int32)[:, None]
    module = TokenGenerator(factories.make_spec(), TRUNK, SIZE, table, len(table))
    batch = factories.make_batch()

    def both(module, request, scores):
        memory = module.encode(request, drop=identity)
        logits = module.decode(memory, scores, request.where, drop=identity)
        scene = module.scene(memory, scores, request.where, drop=identity)
        lists = jnp.full((*scores.shape, SIZE), -1, jnp.int32)
        lists = lists.at[:, :, 0].set(jnp.arange(scores.shape[1]))
        return logits, module.log_probability(scene, lists, drop=identity)[..., 0]

    start = factories.quick_jit(
        lambda *args: module.init_with_output(jax.random.key(0), *args, method=both)[0]
    )
    logits, likely = start(batch.request, batch.scores)
    where = batch.request.where
    np.testing.assert_allclose(
        jnp.where(where, likely, 0), ops.masked_log_softmax(logits, where), rtol=1e-4, atol=1e-5
    )


def test_shown_lists_are_taught_positives_first():
    batch = factories.make_batch(B=3, N=5, K=4)
    slate = jnp.array([[4, 0, -1, 2], [1, 2, 3, 0], [-1, -1, -1, -1]])
    labels = jnp.array([[0, 0, 1, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]], jnp.float32)
    weights = jnp.ones((3, 5)).at[1, 3].set(0)
    found = best_first(batch.replace(slate=slate, labels=labels, weights=weights))
    expected = [[2, 4, 0, -1], [2, 0, 1, -1], [-1, -1, -1, -1]]
    np.testing.assert_array_equal(found, expected)


def test_reinforcement_comes_last():
    stages = model_of("glorank").reranker.stages
    assert [stage.name for stage in stages] == ["evaluator", "imitation", "reinforcement"]


def test_without_differences_in_reward_only_imitation_is_left():
    model = model_of("glorank")
    judge = model.params["evaluator"]
    params = model.params | {
        "evaluator": judge | {"head": jax.tree.map(jnp.zeros_like, judge["head"])}
    }
    second, third = (
        factories.quick_jit(jax.grad(stage.loss))(params, model.batch, key=jax.random.key(2))
        for stage in model.reranker.stages[1:]
    )
    # Lists of one length are judged alike; a request has lists of one length.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), second, third)


def test_reinforcement_is_by_the_standard_score_of_the_evaluators_value():
    model, key = model_of("glorank"), jax.random.key(3)
    batch, request = model.batch, model.batch.request
    keys = ops.per_request_keys(jax.random.split(key)[1], request.index)
    shape = (GROUP, SIZE, TABLE.shape[1] + 1)
    luck = jax.vmap(lambda own: jax.random.uniform(own, shape))(keys)
    judge = ListEvaluator(factories.make_spec(), TRUNK, SIZE)
    # Chances far from equal, so that the term is not lost beside the other.
    sharp = model.params["generator"] | {"codes": 4 * model.params["generator"]["codes"]}
    params = model.params | {"generator": sharp}

    def policy(module, group):
        memory = module.encode(request, drop=identity)
        scene = module.scene(memory, batch.scores, request.where, drop=identity)
        if group is None:
            return module.write(scene, luck, group=GROUP)
        return module.log_probability(scene, group, drop=identity).sum(axis=-1)

    def value(module, group):
        return list_value(module(module.read(request, drop=identity), group, drop=identity), group)

    def expected(params):
        group = run(policy, None, params=params["generator"])
        judged = judge.apply({"params": params["evaluator"]}, group, method=value)
        return group, judged, run(policy, group, params=params["generator"])

    _, judged, likely = factories.quick_jit(expected)(params)
    away = -(standardise(judged, ddof=1) * likely).mean()
    second, third = (
        factories.quick_jit(stage.loss)(params, batch, key=key)
        for stage in model.reranker.stages[1:]
    )
    assert abs(float(away)) > 0.05
    # What float32 leaves of a small share of the sum.
    np.testing.assert_allclose((third - second) / REINFORCEMENT_WEIGHT, away, atol=1e-3)


@pytest.mark.parametrize(("knob", "least"), [("group_size", 2), ("codes", 2), ("code_levels", 1)])
def test_knobs_outside_their_range_are_refused(knob, least):
    with pytest.raises(ValueError, match=f"{knob} is {least - 1}: it must be {least} or more"):
        build("glorank", factories.make_task(), **{knob: least - 1})


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (VECTORS[1:], r"has shape \(39, 4\), but the items of 'item' need \(40, E\)"),
        (VECTORS[:, :0], r"has shape \(40, 0\)"),
        (None, "item_vectors is not given"),
    ],
)
def test_vectors_of_other_items_are_refused(vectors, message):
    with pytest.raises(ValueError, match=message):
        build("glorank", factories.make_task(item_vectors=vectors))
