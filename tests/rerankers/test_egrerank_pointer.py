"""The pointer policy against a slow one in numpy: probabilities, gradients, lists."""

from functools import cache, partial
from itertools import permutations

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax.nn.dropout import identity
from dnr_jax.nn.score_entry import ScoreUse
from dnr_jax.rerankers.egrerank.pointer import Pointer

D, K = 4, 3
RNG = np.random.default_rng(0)
TOKENS = RNG.normal(size=(2, 5, D)).astype(np.float32)
SCORES = RNG.random((2, 5)).astype(np.float32)
WHERE = np.array([[True, True, False, True, True], [False, True, False, False, True]])
LISTS = [list(permutations([0, 1, 3, 4], K)), [(1, 4, -1), (4, 1, -1)]]


def pointer(place):
    return Pointer(ScoreUse("concatenate", place), D)


@cache
def parameters(place):
    module = pointer(place)
    start = partial(module.init, jax.random.key(0), TOKENS, SCORES, drop=identity)
    shapes = jax.eval_shape(partial(start, method=Pointer.first))["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)


def roll(place, params, noise):
    inputs = (TOKENS, SCORES, WHERE, noise)
    return pointer(place).apply({"params": params}, *inputs, drop=identity, method=Pointer.unroll)


unroll = factories.quick_jit(roll, static_argnums=0)


def forced(row, count):
    """Noise under which request `row` builds each of its `LISTS`, whatever the policy thinks."""
    noise = np.zeros((2, count, K, 5), np.float32)
    for number, order in enumerate(LISTS[row]):
        for k, item in enumerate(order):
            if item >= 0:
                noise[row, number, k, item] = 1e4
    return noise


def dense(params, x):
    return x @ params["kernel"] + params.get("bias", 0.0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def slow_logits(params, place, items, scores, state):
    """Logits of all candidates given the LSTM's output."""
    hidden = np.maximum(dense(params["of_item"], items) + dense(params["of_state"], state), 0)
    centred = hidden - hidden.mean(axis=-1, keepdims=True)
    hidden = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    hidden = hidden * params["norm"]["scale"] + params["norm"]["bias"]
    if place != "early":
        hidden = np.concatenate([hidden, scores[:, None]], axis=-1)
    if place == "late":
        hidden = np.maximum(dense(params["head"]["hidden"], hidden), 0)
    return dense(params["head"]["output"], hidden)[:, 0]


def slow_record(params, place, row, order):
    """Log-probability and entropy of each choice of a list, step by step."""
    items, scores = (np.asarray(a[row], np.float64) for a in (TOKENS, SCORES))
    if place == "early":
        joined = np.concatenate([items, scores[:, None]], axis=-1)
        items = dense(params["early_entry"]["Dense_0"], joined)
    h, c, last = np.zeros(D), np.zeros(D), np.zeros(D)
    left, record = list(np.flatnonzero(WHERE[row])), []
    for item in order:
        gates = dense(params["cell"]["input"], last) + h @ params["cell"]["kernel"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        if item < 0:
            record.append((0.0, 0.0))
            continue
        logits = slow_logits(params, place, items, scores, h)[left]
        chances = np.exp(logits) / np.exp(logits).sum()
        record.append((np.log(chances[left.index(item)]), -(chances * np.log(chances)).sum()))
        left.remove(item)
        last = items[item]
    return np.array(record)


def float64(params):
    return jax.tree.map(lambda a: np.asarray(a, np.float64), params)


@pytest.mark.parametrize("place", ["early", "late", "late_linear"])
def test_the_policy_is_that_by_hand_and_its_probabilities_sum_to_one(place):
    params = parameters(place)
    for row in (0, 1):
        count = len(LISTS[row])
        rollout = jax.tree.map(lambda a, row=row: a[row], unroll(place, params, forced(row, count)))
        np.testing.assert_array_equal(rollout.lists, LISTS[row])
        expected = [slow_record(float64(params), place, row, order) for order in LISTS[row]]
        logs, entropies = np.moveaxis(np.array(expected), -1, 0)
        np.testing.assert_allclose(rollout.log_probabilities, logs, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(rollout.entropies, entropies, rtol=1e-4, atol=1e-5)
        total = np.exp(np.asarray(rollout.log_probabilities, np.float64).sum(axis=-1)).sum()
        np.testing.assert_allclose(total, 1.0, rtol=1e-5)


def test_gradients_are_those_of_finite_differences():
    params, weights = parameters("late"), RNG.normal(size=(2, 24, K))
    rng = np.random.default_rng(5)
    step = jax.tree.map(lambda a: rng.normal(size=a.shape), params)

    def judged(params):
        rollout = roll("late", params, forced(0, 24))
        both = jnp.stack([rollout.log_probabilities[0], rollout.entropies[0]])
        return (both * weights).sum()

    def slow(size):
        moved = jax.tree.map(lambda a, s: a + size * s, float64(params), step)
        records = np.array([slow_record(moved, "late", 0, order) for order in LISTS[0]])
        return (np.moveaxis(records, -1, 0) * weights).sum()

    slope = factories.quick_jit(jax.grad(judged))(params)
    found = sum(jax.tree.leaves(jax.tree.map(lambda g, s: (g * s).sum(), slope, step)))
    np.testing.assert_allclose(found, (slow(1e-6) - slow(-1e-6)) / 2e-6, rtol=1e-3)


def test_without_noise_each_choice_is_the_best_of_those_left():
    params = parameters("late")
    lists = unroll("late", params, np.zeros((2, 1, K, 5), np.float32)).lists[:, 0]
    for row in (0, 1):
        chosen, left = [], list(np.flatnonzero(WHERE[row]))
        while left and len(chosen) < K:
            chances = [slow_record(float64(params), "late", row, [*chosen, i])[-1, 0] for i in left]
            chosen.append(left.pop(int(np.argmax(chances))))
        np.testing.assert_array_equal(lists[row], chosen + [-1] * (K - len(chosen)))


def test_gumbel_noise_draws_from_the_policy():
    count = 4000
    noise = jax.random.gumbel(jax.random.key(2), (2, count, K, 5))
    drawn = unroll("late", parameters("late"), noise)
    found, first, counts = np.unique(
        np.asarray(drawn.lists[0]), axis=0, return_index=True, return_counts=True
    )
    assert {tuple(row) for row in found} <= set(LISTS[0])
    chances = np.exp(np.asarray(drawn.log_probabilities[0], np.float64).sum(axis=-1))[first]
    assert chances.sum() > 0.99
    assert np.all(np.abs(counts / count - chances) < 4 * np.sqrt(chances / count))
    assert {tuple(row) for row in np.asarray(drawn.lists[1])} <= set(LISTS[1])


def test_the_first_logits_are_those_of_the_first_choice():
    params = parameters("early")
    first = pointer("early").apply(
        {"params": params}, TOKENS, SCORES, drop=identity, method=Pointer.first
    )
    logs = jax.nn.log_softmax(first[0][WHERE[0]])
    record = unroll("early", params, forced(0, 24)).log_probabilities[0, :, 0]
    items = np.array(LISTS[0])[:, 0]
    np.testing.assert_allclose(
        record, logs[np.searchsorted(np.flatnonzero(WHERE[0]), items)], rtol=1e-4, atol=1e-5
    )


def test_a_linear_head_still_sees_what_was_chosen_before():
    """The odds of two items at the second place depend on the first item."""
    logs = np.asarray(unroll("late_linear", parameters("late_linear"), forced(0, 24))[1][0, :, 1])
    second = {order[:2]: value for order, value in zip(LISTS[0], logs, strict=True)}
    odds = [second[first, 3] - second[first, 4] for first in (0, 1)]
    assert abs(odds[0] - odds[1]) > 0.1
