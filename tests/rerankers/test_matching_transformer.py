"""The matching transformer's own properties: it holds SASRec, and it sees the list."""

import factories
import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax import types
from dnr_jax.rerankers import build

BATCH = factories.make_batch(seed=5)
KNOBS = {**factories.SMALL, "score_entry": "none"}


def silent(params):
    """Switch the list's part off: a head whose output layer is 0."""
    return params | {"head": jax.tree.map(jnp.zeros_like, params["head"])}


def test_with_a_silent_head_it_is_sasrec():
    model, plain = (
        build(name, factories.make_task(), **KNOBS) for name in ("matching_transformer", "sasrec")
    )
    params = silent(factories.random_params(model, BATCH))
    same = {name: params[name] for name in ("embedding", "history")}
    found = types.apply(model, params, BATCH.request, BATCH.scores)
    expected = types.apply(plain, same, BATCH.request, BATCH.scores)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_another_candidate_in_the_list_changes_the_logits_of_the_first():
    model = build("matching_transformer", factories.make_task(), **KNOBS)
    params = factories.random_params(model, BATCH)
    request = BATCH.request.replace(where=jnp.ones_like(BATCH.request.where))
    items = request.candidates.at[:, 1:, 0].set(7)
    there, other = (
        types.apply(model, params, request.replace(candidates=c), BATCH.scores)[:, 0]
        for c in (request.candidates, items)
    )
    assert float(jnp.abs(there - other).min()) > 1e-4
