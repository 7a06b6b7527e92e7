"""EGRerank: REINFORCE in its first step, the discriminator's view, the stages, what it learns."""

from functools import cache

import factories
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_contract import CASES, model_of

from dnr_jax import types
from dnr_jax.nn.adapter import hide_padding
from dnr_jax.nn.dropout import identity
from dnr_jax.nn.list_evaluator import judge
from dnr_jax.nn.score_entry import ScoreUse
from dnr_jax.nn.slates import take_items, top_list
from dnr_jax.rerankers import RERANKERS, build
from dnr_jax.rerankers.egrerank import (
    ENTROPY,
    GAMMA,
    EGRerank,
    EGRerankSettings,
    policy_loss,
    tell_apart,
)
from dnr_jax.rerankers.egrerank.pointer import Pointer, Rollout

KNOBS = factories.SMALL | CASES["egrerank"].knobs
BATCH = factories.make_batch()
# A hole, and a request without a logged list.
BATCH = BATCH.replace(slate=BATCH.slate.at[0, 1].set(-1).at[2].set(-1))
WHERE = BATCH.request.where
KEY = jax.random.key(5)
USE = ScoreUse("concatenate", "late")
POLICY = ("request_encoder", "fusion", "pointer")
RNG = np.random.default_rng(0)


def module(realism):
    settings = EGRerankSettings(**(KNOBS | {"realism": realism}))
    return EGRerank(factories.make_spec(), settings, 3)


def make(**knobs):
    return build("egrerank", factories.make_task(), **(KNOBS | knobs))


@cache
def parameters():
    return factories.random_params(make(), BATCH, scale=0.4)


def drawn_and_judged(module, batch, key):
    """Samples of the policy, the evaluator's logits of them, the discriminator's of all lists."""
    drawn = module.draw(batch, drop=identity, key=key)
    cut = jnp.where(batch.slate[:, None] < 0, -1, drawn.lists)
    lists = jnp.concatenate([batch.slate[:, None], cut], axis=1)
    clicks = judge(module.evaluator, batch.request, drawn.lists)
    return drawn, clicks, lists, judge(module.discriminator, batch.request, lists)


def advantages_by_hand(rewards):
    """Standard scores of the returns, in numpy."""
    returns = np.array(rewards, np.float64)
    for k in reversed(range(returns.shape[-1] - 1)):
        returns[..., k] += GAMMA * returns[..., k + 1]
    spread = returns.std(axis=1, keepdims=True)
    centred = returns - returns.mean(axis=1, keepdims=True)
    return np.where(spread > 1e-6, centred / np.maximum(spread, 1e-6), 0.0)


@cache
def pieces():
    """Value and gradient of the policy stage, and of its parts put together by hand."""
    batch = BATCH.replace(request=hide_padding(BATCH.request))
    realism = KNOBS["realism"]
    stage = make().stages[1]

    def parts(params):
        draw_key = jax.random.split(KEY)[1]
        return module(realism).apply({"params": params}, batch, draw_key, method=drawn_and_judged)

    @factories.quick_jit
    def run(params):
        return jax.value_and_grad(stage.loss)(params, BATCH, key=KEY), parts(params)

    @factories.quick_jit
    def by_hand(params, advantages, real):
        def loss(params):
            drawn, _, lists, logits = parts(params)
            reinforce = -(advantages * drawn.log_probabilities) - ENTROPY * drawn.entropies
            return jnp.where(real, reinforce, 0.0).sum() / real.sum() + tell_apart(logits, lists)

        return jax.grad(loss)(params)

    (value, slope), (drawn, clicks, lists, logits) = run(parameters())
    real = np.asarray(drawn.lists) >= 0
    rewards = 1 / (1 + np.exp(-np.asarray(clicks, np.float64)))
    rewards += (
        realism * np.log1p(np.exp(np.asarray(logits[:, 1:]))) * (np.asarray(lists)[:, 1:] >= 0)
    )
    advantages = advantages_by_hand(np.where(real, rewards, 0.0))
    expected = by_hand(parameters(), advantages.astype(np.float32), real)
    return value, slope, drawn, lists, logits, advantages, expected


def test_samples_are_real_candidates_without_repeats_and_differ():
    _, _, drawn, _, _, _, _ = pieces()
    for row, real in zip(np.asarray(drawn.lists), WHERE, strict=True):
        for sample in row:
            items = sample[sample >= 0]
            assert len(items) == min(3, int(real.sum())) == len(set(items))
            assert np.all(np.asarray(real)[items])
    assert len({tuple(row) for row in np.asarray(drawn.lists[0])}) > 1


def test_advantages_have_zero_mean_over_the_samples_of_a_place():
    advantages = pieces()[5]
    np.testing.assert_allclose(advantages.mean(axis=1), 0.0, atol=1e-9)
    assert np.abs(advantages).max() > 0.5


def test_the_step_is_that_of_reinforce_with_the_rewards_of_both_judges():
    _, slope, _, _, _, _, expected = pieces()
    for group in (*POLICY, "discriminator"):
        for path, leaf in jax.tree_util.tree_leaves_with_path(slope[group]):
            other = expected[group]
            for step in path:
                other = other[step.key]
            np.testing.assert_allclose(leaf, other, rtol=2e-3, atol=2e-6, err_msg=str(path))


def test_the_loss_is_entropy_and_discriminator_where_the_ratio_is_one():
    value, _, drawn, lists, logits, advantages, _ = pieces()
    real = np.asarray(drawn.lists) >= 0
    expected = -(advantages + ENTROPY * np.asarray(drawn.entropies))[real].mean()
    np.testing.assert_allclose(value, expected + float(tell_apart(logits, lists)), rtol=1e-4)


def test_equal_rewards_leave_the_entropy_alone():
    lists = jnp.asarray(np.argsort(RNG.random((2, 3, 5)))[..., :3], jnp.int32).at[1, :, 2].set(-1)
    logs, entropies = (jnp.asarray(RNG.random((2, 3, 3)), jnp.float32) for _ in range(2))

    def loss(logs, entropies):
        return policy_loss(Rollout(lists, logs, entropies), jnp.full((2, 3, 3), 0.7))

    slopes = jax.grad(loss, argnums=(0, 1))(-logs, entropies)
    np.testing.assert_array_equal(slopes[0], 0.0)
    np.testing.assert_allclose(slopes[1], -ENTROPY / 15 * (lists >= 0), rtol=1e-5)


def test_the_discriminator_weighs_logged_and_drawn_lists_alike():
    lists = jnp.array([[[0, -1, 2], [1, -1, 3], [2, -1, 0]], [[-1, -1, -1]] * 3])
    logits = np.asarray(RNG.normal(size=(2, 3, 3)), np.float32)
    logged = [np.log1p(np.exp(-logits[0, 0, k])) for k in (0, 2)]
    drawn = [np.log1p(np.exp(logits[0, s, k])) for s in (1, 2) for k in (0, 2)]
    expected = (np.mean(logged) + np.mean(drawn)) / 2
    np.testing.assert_allclose(tell_apart(jnp.asarray(logits), lists), expected, rtol=1e-5)


def test_the_discriminator_is_silent_on_requests_without_a_logged_list():
    unlogged = BATCH.replace(slate=jnp.full_like(BATCH.slate, -1))
    plain = dict(parameters())
    del plain["discriminator"]
    with jax.numpy_rank_promotion("raise"):
        losses = factories.quick_jit(
            lambda params: [
                make().stages[1].loss(parameters(), unlogged, key=KEY),
                make(realism=0.0).stages[1].loss(params, unlogged, key=KEY),
            ]
        )(plain)
    # Of two discriminator losses of some ln 2 nothing is left.
    np.testing.assert_allclose(*losses, atol=1e-5)


def test_without_realism_there_is_no_discriminator():
    model = make(realism=0.0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), BATCH.request, BATCH.scores)
    assert set(shapes) == {*POLICY, "evaluator"}
    assert model.stages[1].groups == POLICY


def test_an_evaluator_is_trained_first():
    stages = model_of("egrerank").reranker.stages
    assert [stage.name for stage in stages] == ["evaluator", "policy"]
    assert [stage.groups for stage in stages] == [("evaluator",), (*POLICY, "discriminator")]
    assert RERANKERS["egrerank"].needs_slate


def test_the_greedy_list_is_shown_before_the_others():
    @factories.quick_jit
    def run(params):
        memory = make().encode(params, BATCH.request).inner
        inputs = (memory, BATCH.scores, WHERE, jnp.zeros((6, 1, 3, 8)))
        rollout = Pointer(USE, 8).apply(
            {"params": params["pointer"]}, *inputs, drop=identity, method=Pointer.unroll
        )
        logits = types.apply(make(), params, BATCH.request, BATCH.scores)
        return rollout.lists[:, 0], logits, types.rank(make(), params, BATCH.request, BATCH.scores)

    lists, logits, order = (np.asarray(a) for a in run(parameters()))
    for row, greedy in zip(order, lists, strict=True):
        best = greedy[greedy >= 0]
        np.testing.assert_array_equal(np.argsort(-row)[: len(best)], best)
    factories.assert_others_follow(order, logits, WHERE)


def test_the_policy_learns_which_items_are_rewarded():
    """Rewards of items by a table; the best list takes them from the highest down."""
    table = jnp.asarray(RNG.random((6, 8)), jnp.float32)
    tokens = jnp.asarray(RNG.normal(size=(6, 8, 8)), jnp.float32)
    pointer, optimizer = Pointer(ScoreUse("none", "late"), 8), optax.adam(0.01)

    def unroll(params, noise):
        inputs = (tokens, BATCH.scores, WHERE, noise)
        return pointer.apply(params, *inputs, drop=identity, method=Pointer.unroll)

    def rewards(lists):
        return jnp.where(lists >= 0, take_items(table, lists), 0.0)

    def loss(params, key):
        drawn = unroll(params, jax.random.gumbel(key, (6, 5, 3, 8)))
        return policy_loss(drawn, rewards(drawn.lists))

    def step(state, key):
        params, moments = state
        moves, moments = optimizer.update(jax.grad(loss)(params, key), moments)
        return (optax.apply_updates(params, moves), moments), None

    @factories.quick_jit
    def learn(key):
        start = pointer.init(key, tokens, BATCH.scores, drop=identity, method=Pointer.first)
        state = (start, optimizer.init(start))
        (params, _), _ = jax.lax.scan(step, state, jax.random.split(key, 300))
        quiet = jnp.zeros((6, 1, 3, 8))
        return [rewards(unroll(p, quiet).lists).mean() for p in (start, params)]

    before, after = learn(jax.random.key(0))
    best = rewards(top_list(table, WHERE, 3)).mean()
    assert before < 0.85 * best
    assert after > 0.97 * best


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"heads": 3}, "width is 8, which 3 heads cannot share"),
        ({"samples": 1}, "samples is 1: it must be 2 or more"),
        ({"realism": -0.1}, "realism is -0.1: it must be 0 or more"),
        ({"dropout": 1.0}, "dropout is 1.0: it must be 0 or more and below 1"),
        ({"score_entry": "sum"}, "score_entry is 'sum': it must be one of none"),
    ],
)
def test_bad_knobs_are_named(knobs, message):
    with pytest.raises(ValueError, match=message):
        make(**knobs)
