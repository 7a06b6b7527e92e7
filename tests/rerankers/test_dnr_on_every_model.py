"""DNR on every learned reranker of the table: both players learn, from one set of scores."""

import factories
import jax
import numpy as np
import pytest
from test_contract import CASES, model_of

from dnr_jax import divergences, noise
from dnr_jax.objectives import ObjectiveSettings
from dnr_jax.rerankers import RERANKERS
from dnr_jax.training.step import Game, generator_terms, reranker_terms
from dnr_jax.types import Task

LEARNED = sorted(n for n, case in CASES.items() if n == case.name and RERANKERS[n].trains)
BASE = noise.build_draw("beta")


@pytest.mark.parametrize("model", LEARNED)
def test_both_players_get_gradients(model):
    model = model_of(model)
    batch = model.batch
    sizes = {"width": 4, "embedding_width": 4}
    learned = noise.build_generator("learned_direct", Task(factories.make_spec()), BASE, **sizes)
    divergence = divergences.build("energy")
    game = Game(model.reranker, learned, divergence, None, ObjectiveSettings())
    phi = learned.init(jax.random.key(1), batch)

    @factories.quick_jit
    def slopes(theta, phi, key):
        both = jax.grad(reranker_terms, has_aux=True)(theta, phi, batch, key, game)
        return both, jax.grad(generator_terms, has_aux=True)(phi, theta, batch, key, game)

    (theta_slope, terms), (phi_slope, _) = slopes(model.params, phi, jax.random.key(2))
    assert set(terms) == {"direct", "denoise"}
    for slope in (theta_slope, phi_slope):
        leaves = jax.tree.leaves(slope)
        assert all(np.isfinite(leaf).all() for leaf in leaves)
        assert any(np.any(leaf) for leaf in leaves)
