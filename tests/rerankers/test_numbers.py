"""Every reranker takes numbers beside ids, and hides those of padding."""

import factories
import jax
import numpy as np
import pytest

from dnr_jax import types
from dnr_jax.nn.adapter import hide_padding
from dnr_jax.nn.trunk import Trunk
from dnr_jax.rerankers import RERANKERS, build

NUMBERED = factories.make_spec()._replace(
    numbers=("age",), item_numbers=("price", "price is missing")
)
# Those that learn nothing read no features.
LEARNED = sorted(name for name, entry in RERANKERS.items() if entry.trains)


def numbered():
    batch, rng = factories.make_batch(), np.random.default_rng(0)
    numbers = rng.normal(size=(*batch.scores.shape, 2)).astype(np.float32)
    request = batch.request.replace(
        numbers=rng.normal(size=(len(batch.scores), 1)).astype(np.float32),
        item_numbers=jax.numpy.asarray(numbers),
    )
    return batch.replace(request=request)


@pytest.mark.parametrize("name", LEARNED)
def test_a_reranker_reads_numbers_where_there_are_any(name):
    """By tracing alone: what is read is a parameter."""
    batch, trunk = numbered(), issubclass(RERANKERS[name].settings, Trunk)
    task = factories.make_task()._replace(spec=NUMBERED)
    reranker = build(name, task, **(factories.SMALL if trunk else {}))
    params = jax.eval_shape(reranker.init, jax.random.key(0), batch.request, batch.scores)
    paths = ["".join(map(str, path)) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    assert any("'item_numbers'" in path for path in paths), paths
    order = jax.eval_shape(lambda p: types.rank(reranker, p, batch.request, batch.scores), params)
    assert order.shape == batch.scores.shape


def test_numbers_of_padding_are_hidden():
    request = numbered().request
    hidden = hide_padding(request)
    where = np.asarray(request.where)
    assert not np.asarray(hidden.item_numbers)[~where].any()
    np.testing.assert_array_equal(hidden.item_numbers[where], request.item_numbers[where])
