"""SASRec's own properties: padding, the order of events, an empty history, knobs."""

from functools import cache

import factories
import jax.numpy as jnp
import numpy as np

from dnr_jax import types
from dnr_jax.rerankers import build

KNOBS = {
    "width": 8,
    "history_layers": 2,
    "heads": 2,
    "feed_forward": 12,
    "dropout": 0.1,
    "score_entry": "none",
    "score_place": "late",
}
BATCH = factories.make_batch(seed=5)
LENGTH = BATCH.request.history.shape[1]


def make(**knobs):
    return build("sasrec", factories.make_task(), **(KNOBS | knobs))


@cache
def scorer():
    """Compile a SASRec of random parameters into `logits(params, request)`."""
    model = make()
    params = factories.random_params(model, BATCH)
    return params, factories.quick_jit(lambda p, r: types.apply(model, p, r, BATCH.scores))


def test_more_padding_changes_nothing():
    params, score = scorer()
    table = params["history"]["positions"]
    longer = params | {
        "history": params["history"] | {"positions": jnp.concatenate([table, table[:2] + 9])}
    }
    request = BATCH.request.replace(
        history=jnp.pad(BATCH.request.history, ((0, 0), (2, 0), (0, 0)), constant_values=3),
        history_where=jnp.pad(BATCH.request.history_where, ((0, 0), (2, 0))),
    )
    np.testing.assert_allclose(
        score(longer, request), score(params, BATCH.request), rtol=1e-5, atol=1e-5
    )


def test_swapping_two_events_changes_the_logits():
    params, score = scorer()
    full = BATCH.request.replace(history_where=jnp.ones_like(BATCH.request.history_where))
    order = jnp.arange(LENGTH).at[:2].set(jnp.array([1, 0]))
    swapped = full.replace(history=full.history[:, order])
    assert float(jnp.abs(score(params, full) - score(params, swapped)).max()) > 1e-3


def test_an_empty_history_matches_nothing():
    params, score = scorer()
    none = BATCH.request.replace(history_where=jnp.zeros_like(BATCH.request.history_where))
    logits = score(params, none)
    np.testing.assert_array_equal(jnp.where(BATCH.request.where, logits, 0), 0)
