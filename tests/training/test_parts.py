"""A batch in parts has the gradient of the whole batch."""

import dataclasses
from functools import partial

import chex
import factories
import jax
import jax.numpy as jnp
import pytest
import toy_players

from dnr_jax.rerankers import build
from dnr_jax.training import parts
from dnr_jax.training.step import generator_gradient, reranker_gradient

GAME, KEY = toy_players.GAME, jax.random.key(5)
# The weights of the parts differ: one request has no judged candidate, others fewer than all.
DATA = toy_players.batch(12)
DATA = DATA.replace(weights=DATA.weights.at[3].set(0).at[:4, 2].set(0))
# Another has no positive, so that the parts differ for list-wise losses too.
DATA = DATA.replace(labels=DATA.labels.at[7].set(0))
LIST_WISE = GAME._replace(objective=dataclasses.replace(GAME.objective, loss="attention_rank"))
PLAYERS = toy_players.state().params["reranker"], toy_players.state().params["generator"]
WORLD = factories.make_batch(B=6)

assert_close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("part", [1, 3, 4, 6])
def test_gradients_and_losses_are_those_of_the_whole(part):
    for game in (GAME, GAME._replace(noise=None), LIST_WISE):
        whole = reranker_gradient(*PLAYERS, DATA, KEY, game, part=12)
        assert_close(reranker_gradient(*PLAYERS, DATA, KEY, game, part=part), whole)


@pytest.mark.parametrize("part", [1, 3, 4, 6])
def test_the_generator_s_gradient_is_that_of_the_whole_with_l_x_over_all(part):
    theta, phi = PLAYERS
    for game in (GAME, LIST_WISE):
        whole = generator_gradient(phi, theta, DATA, KEY, game, part=12)
        assert_close(generator_gradient(phi, theta, DATA, KEY, game, part=part), whole)


def gradient_of(name):
    """Return `run(batch, key, part)`, compiled: the gradient of a model with strong dropout."""
    model = build(name, factories.make_task(), **(factories.SMALL | {"dropout": 0.4}))
    theta = factories.quick_jit(model.init)(jax.random.key(0), WORLD.request, WORLD.scores)
    game = GAME._replace(reranker=model)
    compiled = factories.quick_jit(reranker_gradient, static_argnames=("game", "part"))
    return lambda batch, key, part: compiled(theta, PLAYERS[1], batch, key, game, part=part)


# DiffuRec has several samples a request on the requests' axis.
@pytest.mark.parametrize("name", ["prm", "diffurec"])
def test_parts_in_any_order_have_the_noise_and_the_dropout_of_the_whole(name):
    run, order = gradient_of(name), jnp.array([4, 2, 0, 5, 1, 3])
    moved = jax.tree.map(lambda a: a[order], WORLD)
    whole, part = run(WORLD, KEY, 6), run(WORLD, KEY, 2)
    for found in (part, run(moved, KEY, 6), run(moved, KEY, 2)):
        # Other orders of a sum leave 1e-7 where its terms, of about 1, cancel; JAX 0.12 leaves
        # 1.1e-5 of a sum of 9.
        assert_close(found, whole, rtol=3e-5, atol=1e-6)
    other = run(WORLD, jax.random.key(6), 2)
    assert abs(other[1]["direct"] / whole[1]["direct"] - 1) > 1e-3


def test_a_loss_of_its_own_sees_the_whole_batch():
    def own(params, batch, *, key=None, train=False):
        return params["slope"] * len(batch.scores)

    game = GAME._replace(own_loss=own)
    gradient, _ = reranker_gradient(*PLAYERS, DATA, KEY, game, part=4)
    assert gradient["slope"] == 12


def test_a_cpu_computes_large_batches_in_parts_and_accelerators_do_not(monkeypatch):
    assert [parts.part_size(size) for size in (512, 64, 32, 100)] == [64, 64, 32, 100]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert parts.part_size(512) == 512
