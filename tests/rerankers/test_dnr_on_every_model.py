"""DNR on every learned reranker: the generator learns through those that read the scores."""

import factories
import jax
import numpy as np
import pytest
from test_contract import CASES, irregular, model_of

from dnr_jax import divergences, noise
from dnr_jax.objectives import ObjectiveSettings
from dnr_jax.rerankers import RERANKERS
from dnr_jax.training.step import Game, generator_terms, reranker_terms
from dnr_jax.types import Task

LEARNED = sorted(n for n, case in CASES.items() if n == case.name and RERANKERS[n].trains)
BASE = noise.build_draw("beta")


@pytest.mark.parametrize("name", LEARNED)
def test_the_generator_learns_through_what_reads_its_scores(name):
    model = model_of(name)
    batch = model.batch
    sizes = {"width": 4, "embedding_width": 4}
    learned = noise.build_generator("learned_direct", Task(factories.make_spec()), BASE, **sizes)
    divergence = divergences.build("energy")
    # Without L_x, which the generator would learn from alone.
    game = Game(model.reranker, learned, divergence, None, ObjectiveSettings(lambda_x=0.0))
    phi = learned.init(jax.random.key(1), batch)

    def value(theta, phi, batch, key):
        return reranker_terms(theta, phi, batch, key, game)

    key = jax.random.key(2)
    total, terms = jax.eval_shape(value, model.params, phi, batch, key)
    assert total.shape == ()
    assert set(terms) == {"direct", "denoise"}

    @factories.quick_jit
    def slope(phi, theta, batch, key):  # through the model's reading of x'
        return jax.grad(generator_terms, has_aux=True)(phi, theta, batch, key, game)[0]

    for own in (batch, irregular(batch)):
        leaves = jax.tree.leaves(slope(phi, model.params, own, key))
        assert all(np.isfinite(leaf).all() for leaf in leaves)
        assert any(np.any(leaf) for leaf in leaves) == CASES[name].reads_scores
