"""GoalRank: the reference policy, the reward, and what each stage may move."""

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_contract import model_of

from dnr_jax import ops
from dnr_jax.nn import slates
from dnr_jax.nn.losses import bce
from dnr_jax.rerankers import build
from dnr_jax.rerankers.goalrank import REFERENCE_WEIGHT, list_reward, reference_policy

REWARDS = jnp.asarray(np.random.default_rng(0).random((5, 8)), jnp.float32)


def test_the_reference_is_the_softmax_of_standard_scores():
    r = np.asarray(REWARDS, np.float64)
    scores = (r - r.mean(axis=1, keepdims=True)) / r.std(axis=1, ddof=1, keepdims=True)
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(reference_policy(REWARDS), expected, rtol=1e-4)


def test_the_reference_ignores_scale_and_offset_of_the_rewards():
    np.testing.assert_allclose(
        reference_policy(3.0 * REWARDS + 2.0), reference_policy(REWARDS), rtol=1e-4
    )


def test_equal_rewards_give_the_uniform_reference():
    np.testing.assert_array_equal(reference_policy(jnp.full((2, 8), 1.7)), 0.125)


def test_the_reward_discounts_the_clicks_by_place():
    group = jnp.array([[[3, 0, -1], [1, 2, 0]]])
    clicks = jnp.array([[[0.0, 1.0, 9.0], [-1.0, 0.0, 2.0]]])
    s = 1 / (1 + np.exp(-np.asarray(clicks[0], np.float64)))
    discounts = 1 / np.log2([2, 3, 4])
    expected = [[s[0, 0] * discounts[0] + s[0, 1] * discounts[1], s[1] @ discounts]]
    np.testing.assert_allclose(list_reward(clicks, group), expected, rtol=1e-5)


def test_an_evaluator_is_trained_first():
    stages = model_of("goalrank").reranker.stages
    assert [stage.name for stage in stages] == ["evaluator", "policy"]


def plackett_luce(logits, where, order):
    """log of the probability of drawing `order` without replacement, by the definition."""
    left, total = np.flatnonzero(where).tolist(), 0.0
    for item in order[order >= 0]:
        total += logits[item] - np.log(np.exp(logits[left]).sum())
        left.remove(item)
    return total


def test_under_equal_rewards_the_reference_is_the_mean_likelihood_of_the_sampled_lists():
    # An evaluator whose head is 0 judges every list of a request alike.
    model, key = model_of("goalrank"), jax.random.key(3)
    batch, params = model.batch, dict(model.params)
    params["evaluator"] = params["evaluator"] | {
        "head": jax.tree.map(jnp.zeros_like, params["evaluator"]["head"])
    }
    found = factories.quick_jit(model.reranker.stages[1].loss)(params, batch, key=key)
    logits, where = (np.asarray(a) for a in (model.logits(batch), batch.request.where))
    keys = ops.per_request_keys(jax.random.split(key)[1], batch.request.index)
    group = np.asarray(slates.sample_lists(keys, logits, where, size=3, count=4))
    likelihood = [
        [plackett_luce(row.astype(np.float64), real, order) for order in orders]
        for row, real, orders in zip(logits, where, group, strict=True)
    ]
    direct = bce(jnp.asarray(logits), batch.labels, batch.weights)
    expected = -REFERENCE_WEIGHT * np.mean(likelihood) + float(direct)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_one_list_a_group_is_refused():
    with pytest.raises(ValueError, match="group_size is 1: it must be 2 or more"):
        build("goalrank", factories.make_task(), group_size=1)
