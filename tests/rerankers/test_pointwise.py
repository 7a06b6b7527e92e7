"""What models that score each candidate by itself must hold."""

from functools import cache

import factories
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax import types
from dnr_jax.rerankers import build

GRU4REC = {"width": 8, "dropout": 0.0, "score_entry": "none", "score_place": "late"}
KNOBS = {
    "gru4rec": GRU4REC,
    "sasrec": GRU4REC | {"history_layers": 2, "heads": 2, "feed_forward": 8},
}
BATCH = factories.make_batch(seed=5, T=5)


@cache
def model(name, **knobs):
    """Build a model of large random parameters and compile its logits."""
    reranker = build(name, factories.make_task(), **(KNOBS[name] | knobs))
    params = factories.random_params(reranker, BATCH)
    score = factories.quick_jit(lambda r, x: types.apply(reranker, params, r, x))
    return score


@pytest.fixture(params=sorted(KNOBS))
def name(request):
    return request.param


def test_a_candidate_does_not_see_the_others(name):
    score = model(name)
    ids = BATCH.request.candidates
    other = BATCH.request.replace(candidates=ids.at[:, 1:].set(jnp.roll(ids[:, 1:], 1, axis=0)))
    both = BATCH.request.where[:, :1]
    np.testing.assert_allclose(
        jnp.where(both, score(other, BATCH.scores)[:, :1], 0),
        jnp.where(both, score(BATCH.request, BATCH.scores)[:, :1], 0),
        rtol=1e-5,
        atol=1e-5,
    )


def test_the_order_of_events_matters(name):
    score = model(name)
    full = BATCH.request.replace(history_where=jnp.ones_like(BATCH.request.history_where))
    turned = full.replace(history=full.history[:, ::-1])
    assert float(jnp.abs(score(full, BATCH.scores) - score(turned, BATCH.scores)).max()) > 1e-3


def test_without_scores_it_is_an_inner_product_that_reads_no_score(name):
    score = model(name)
    np.testing.assert_array_equal(
        score(BATCH.request, BATCH.scores), score(BATCH.request, 1 - BATCH.scores)
    )


@pytest.mark.parametrize("entry", ["add", "concatenate"])
def test_late_linear_scores_are_one_slope(name, entry):
    score = model(name, score_entry=entry, score_place="late_linear")
    zero, half, one = (
        score(BATCH.request, jnp.full_like(BATCH.scores, x)) for x in (0.0, 0.5, 1.0)
    )
    np.testing.assert_allclose(half - zero, one - half, atol=1e-4)
    slopes = (one - zero)[BATCH.request.where]
    np.testing.assert_allclose(slopes, slopes[0], atol=1e-4)
    assert abs(float(slopes[0])) > 1e-3


def test_early_weight_of_zero_silences_an_item(name):
    score = model(name, score_entry="weight", score_place="early")
    logits = score(BATCH.request, jnp.zeros_like(BATCH.scores))
    np.testing.assert_allclose(jnp.where(BATCH.request.where, logits, 0), 0, atol=1e-6)
