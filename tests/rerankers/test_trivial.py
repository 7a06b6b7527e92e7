"""The scorers that learn nothing: what they score, and that chance is repeatable."""

from functools import partial

import factories
import jax
import numpy as np
import pytest

from dnr_jax import types
from dnr_jax.rerankers import build

BATCH = factories.make_batch(B=40, N=10)
WHERE = np.asarray(BATCH.request.where)


def score(name, batch=BATCH, **known):
    model = build(name, factories.make_task(**known))
    run = factories.quick_jit(partial(types.apply, model))
    return np.asarray(run({}, batch.request, batch.scores))


def test_retriever_order_and_its_reverse():
    np.testing.assert_array_equal(score("retriever")[WHERE], np.asarray(BATCH.scores)[WHERE])
    np.testing.assert_array_equal(score("reversed")[WHERE], -np.asarray(BATCH.scores)[WHERE])


def test_popularity_reads_the_table_by_item():
    table = np.random.default_rng(0).random(factories.SIZES["item"]).astype(np.float32)
    items = np.asarray(BATCH.request.candidates)[..., 0]
    np.testing.assert_array_equal(
        score("popularity", item_popularity=table)[WHERE], table[items][WHERE]
    )


def test_popularity_of_another_catalogue_is_refused():
    with pytest.raises(ValueError, match=r"item_popularity has shape \(3,\).*need \(40,\)"):
        score("popularity", item_popularity=np.ones(3))
    with pytest.raises(ValueError, match="item_popularity is not given"):
        score("popularity", item_popularity=None)


def test_random_scores_belong_to_the_request_and_the_item():
    part = jax.tree.map(lambda a: a[7:9], BATCH)
    np.testing.assert_array_equal(score("random", part, seed=0), score("random", seed=0)[7:9])
    assert (score("random", seed=1) != score("random", seed=0))[WHERE].mean() > 0.99


def test_random_scores_are_uniform():
    values = score("random", seed=0)[WHERE]
    assert len(np.unique(values)) == len(values)
    assert abs(values.mean() - 0.5) < 4 / np.sqrt(12 * len(values))
    assert values.min() >= 0
    assert values.max() < 1
