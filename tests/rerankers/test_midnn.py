"""MiDNN's own properties: what a candidate knows of its list is minima and maxima, no more."""

from functools import cache

import factories
import jax.numpy as jnp
import numpy as np

from dnr_jax import types
from dnr_jax.rerankers import build

KNOBS = {
    "width": 8,
    "history_layers": 1,
    "heads": 2,
    "feed_forward": 8,
    "dropout": 0.0,
    "score_entry": "add",
    "score_place": "early",
}
BATCH = factories.make_batch(seed=2)
REQUEST = BATCH.request.replace(where=jnp.ones_like(BATCH.request.where))
SCORES = jnp.asarray(np.random.default_rng(0).random(BATCH.scores.shape), jnp.float32)


@cache
def scorer():
    model = build("midnn", factories.make_task(), **KNOBS)
    params = factories.random_params(model, BATCH, seed=1)
    return factories.quick_jit(lambda request, x: types.apply(model, params, request, x))


def test_a_duplicate_changes_no_other_logit():
    last = REQUEST.where.at[:, -1].set(False)
    without = scorer()(REQUEST.replace(where=last), SCORES)
    twin = REQUEST.replace(candidates=REQUEST.candidates.at[:, -1].set(REQUEST.candidates[:, 0]))
    doubled = scorer()(twin, SCORES.at[:, -1].set(SCORES[:, 0]))
    np.testing.assert_allclose(doubled[:, :-1], without[:, :-1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(doubled[:, -1], doubled[:, 0], rtol=1e-4, atol=1e-5)


def test_a_new_extreme_changes_the_others():
    changed = scorer()(REQUEST, SCORES.at[:, 0].set(50.0))
    moved = jnp.abs(changed - scorer()(REQUEST, SCORES))[:, 1:]
    assert float(moved.max()) > 1e-2
