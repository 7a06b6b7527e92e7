"""The list evaluator: what it may see, its value and how it learns."""

from functools import cache, partial

import factories
import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax.nn.dropout import identity
from dnr_jax.nn.list_evaluator import ListEvaluator, evaluator_loss, list_value, slate_labels
from dnr_jax.nn.trunk import Trunk

BATCH = factories.make_batch(B=6, N=8, K=3)
MODULE = ListEvaluator(factories.make_spec(), Trunk(**factories.SMALL), 3)
LISTS = jnp.broadcast_to(jnp.array([[[0, 1, 2], [2, 1, 0]]]), (6, 2, 3))


def _judge(module, request, group):
    return module(module.read(request, drop=identity), group, drop=identity)


@cache
def params():
    start = factories.quick_jit(partial(MODULE.init, method=_judge))
    drawn = start(jax.random.key(0), BATCH.request, LISTS)
    # Places start near 0; the order should count from the first.
    return jax.tree.map(lambda a: a + 0.3 * jax.random.normal(jax.random.key(1), a.shape), drawn)


_run = factories.quick_jit(lambda p, group: MODULE.apply(p, BATCH.request, group, method=_judge))


def judge(group, changed=None):
    return _run(params() if changed is None else changed, group)


def test_each_list_is_judged_by_itself_and_in_order():
    both, swapped = judge(LISTS), judge(LISTS[:, ::-1])
    np.testing.assert_allclose(both, swapped[:, ::-1], rtol=1e-5, atol=1e-6)
    # The same items in another order are another list.
    assert float(jnp.abs(both[0, 0] - both[0, 1, ::-1]).min()) > 1e-3


def test_an_empty_place_is_not_seen():
    short = LISTS.at[..., 2].set(-1)
    padded = judge(short)
    moved = jax.tree.map(lambda a: a, params())
    moved["params"]["places"] = moved["params"]["places"].at[2].add(5.0)
    other = judge(short, moved)
    np.testing.assert_allclose(padded[..., :2], other[..., :2], rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(padded - judge(LISTS))[0, 0, 0]) > 1e-3


def test_the_value_is_the_expected_number_of_clicks():
    clicks = jnp.array([[0.0, 2.0, -1.0]])
    value = list_value(clicks, jnp.array([[4, -1, 2]]))
    np.testing.assert_allclose(value, [0.5 + 1 / (1 + np.e)], rtol=1e-6)


def test_the_loss_is_the_cross_entropy_of_the_shown_list():
    slate = np.asarray(BATCH.slate).copy()
    slate[1, 1] = -1  # a hole counts for nothing
    batch = BATCH.replace(slate=jnp.asarray(slate))
    logits = np.asarray(judge(batch.slate[:, None])[:, 0], np.float64)
    losses = [
        np.log1p(np.exp(logits[b, k])) - float(batch.labels[b, i]) * logits[b, k]
        for b, row in enumerate(slate)
        for k, i in enumerate(row)
        if i >= 0
    ]
    found = MODULE.apply(params(), batch, drop=identity, method=evaluator_loss)
    np.testing.assert_allclose(found, np.mean(losses), rtol=1e-5)
    labels, weights = slate_labels(batch)
    assert weights[1, 1] == labels[1, 1] == 0
