"""The alternating step: who moves, by how much, and on which draws."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy_players

from dnr_jax.training.optimizers import GENERATOR, RERANKER
from dnr_jax.training.step import GENERATOR_TERMS, RERANKER_TERMS, make_step

STEP = jax.jit(make_step(toy_players.GAME, toy_players.OPTIMIZER, plays=True))


def bce(logits, data):
    """Binary cross-entropy over real candidates, from probabilities."""
    p = jax.nn.sigmoid(logits)
    terms = -(data.labels * jnp.log(p) + (1 - data.labels) * jnp.log1p(-p))
    return jnp.sum(terms * data.weights) / jnp.sum(data.weights)


@pytest.mark.parametrize(
    ("turn", "active", "idle"),
    [(RERANKER, "reranker", "generator"), (GENERATOR, "generator", "reranker")],
)
def test_only_the_active_player_moves(turn, active, idle):
    state, data = toy_players.state(), toy_players.batch()
    for warm in (RERANKER, GENERATOR):
        state, _ = STEP(state, data, warm)
    after, terms = STEP(state, data, turn)
    chex.assert_trees_all_equal(after.params[idle], state.params[idle])
    chex.assert_trees_all_equal(
        after.opt_state.inner_states[idle], state.opt_state.inner_states[idle]
    )
    for new, old in zip(
        jax.tree.leaves(after.params[active]), jax.tree.leaves(state.params[active]), strict=True
    ):
        assert new != old
    mine, others = (RERANKER_TERMS, GENERATOR_TERMS)[:: 1 if turn == RERANKER else -1]
    assert all(terms[name] != 0 for name in mine if name != "own")
    assert all(terms[name] == 0 for name in (*others, "own"))
    assert int(after.step) == int(state.step) + 1


def test_reranker_turn_follows_its_equation():
    """L_theta = L_direct + lambda_m L_z with x' drawn from the step's own key."""
    state, data, weights = toy_players.state(), toy_players.batch(), toy_players.OBJECTIVE
    noise_key = jax.random.split(jax.random.fold_in(state.key, 0), 4)[2]
    noisy = toy_players.NOISE.sample(state.params["generator"], noise_key, data)

    def loss(theta):
        direct = bce(theta["slope"] * data.scores + theta["bias"], data)
        return direct + weights.lambda_m * bce(theta["slope"] * noisy + theta["bias"], data)

    gradient = jax.grad(loss)(state.params["reranker"])
    _, terms = STEP(state, data, RERANKER)
    np.testing.assert_allclose(
        terms["direct"] + weights.lambda_m * terms["denoise"],
        loss(state.params["reranker"]),
        rtol=1e-6,
    )
    np.testing.assert_allclose(terms["reranker_gradient"], optax.tree.norm(gradient), rtol=1e-5)


def test_generator_turn_follows_its_equation():
    """L_phi = lambda_adv E[log q(z | x')] + lambda_x L_x: log-likelihood is pushed down."""
    state, data, weights = toy_players.state(), toy_players.batch(), toy_players.OBJECTIVE
    key, theta = jax.random.fold_in(state.key, 0), state.params["reranker"]

    def loss(phi):
        noisy = toy_players.NOISE.sample(phi, key, data)
        adversarial = -bce(theta["slope"] * noisy + theta["bias"], data)
        gap = jnp.mean(noisy - data.scores, where=data.request.where)
        return weights.lambda_adv * adversarial + weights.lambda_x * gap**2

    _, terms = STEP(state, data, GENERATOR)
    value, gradient = jax.value_and_grad(loss)(state.params["generator"])
    np.testing.assert_allclose(
        weights.lambda_adv * terms["adversarial"] + weights.lambda_x * terms["regulariser"],
        value,
        rtol=1e-5,
    )
    np.testing.assert_allclose(terms["generator_gradient"], optax.tree.norm(gradient), rtol=1e-4)


def test_both_turns_follow_the_loss_that_the_settings_name():
    """List-wise: -sum_i t_i log softmax(s)_i with t uniform over the positives of a request."""
    state, data = toy_players.state(), toy_players.batch()
    objective = dataclasses.replace(toy_players.OBJECTIVE, loss="attention_rank")
    game = toy_players.GAME._replace(objective=objective)
    step = jax.jit(make_step(game, toy_players.OPTIMIZER, plays=True, part=4))
    theta, where = state.params["reranker"], data.request.where

    def list_wise(scores):
        s = jnp.where(where, theta["slope"] * scores + theta["bias"], -jnp.inf)
        p = jnp.exp(s) / jnp.exp(s).sum(axis=1, keepdims=True)
        count = data.labels.sum(axis=1)
        each = -(data.labels * jnp.log(jnp.where(where, p, 1))).sum(axis=1) / jnp.maximum(count, 1)
        return each[count > 0].mean()

    keys = jax.random.split(jax.random.fold_in(state.key, 0), 4)
    draw = toy_players.NOISE.sample
    _, terms = step(state, data, RERANKER)
    noisy = draw(state.params["generator"], keys[2], data)
    np.testing.assert_allclose(terms["direct"], list_wise(data.scores), rtol=1e-5)
    np.testing.assert_allclose(terms["denoise"], list_wise(noisy), rtol=1e-5)
    _, terms = step(state, data, GENERATOR)
    noisy = draw(state.params["generator"], jax.random.fold_in(state.key, 0), data)
    np.testing.assert_allclose(terms["adversarial"], -list_wise(noisy), rtol=1e-5)


def test_score_dropout_and_smooth_labels_change_the_direct_loss():
    """At probability 1 the scores are all 0; labels are drawn towards one half."""
    objective = dataclasses.replace(toy_players.OBJECTIVE, score_dropout=1.0, label_smoothing=0.2)
    game = toy_players.GAME._replace(noise=None, objective=objective)
    state, data = toy_players.state(), toy_players.batch()
    theta = {"slope": jnp.float32(0.7), "bias": jnp.float32(-0.4)}
    state = state.replace(params=state.params | {"reranker": theta})
    _, terms = jax.jit(make_step(game, toy_players.OPTIMIZER, plays=False))(state, data, RERANKER)
    smooth = data.replace(labels=0.8 * data.labels + 0.1)
    expected = bce(jnp.full_like(data.scores, theta["bias"]), smooth)
    np.testing.assert_allclose(terms["direct"], expected, rtol=1e-6)


def test_plain_training_draws_no_noise():
    game = toy_players.GAME._replace(noise=None)
    step = jax.jit(make_step(game, toy_players.OPTIMIZER, plays=False))
    state, data = toy_players.state(), toy_players.batch()
    _, terms = step(state, data, RERANKER)
    expected = bce(state.params["reranker"]["slope"] * data.scores, data)
    np.testing.assert_allclose(terms["direct"], expected, rtol=1e-6)
    assert terms["denoise"] == 0


def test_alternation_reaches_the_regulariser_s_target():
    """With the adversarial term off, the generator's mean must approach the observed mean."""
    objective = dataclasses.replace(toy_players.OBJECTIVE, lambda_adv=0.0)
    game = toy_players.GAME._replace(objective=objective)
    step = jax.jit(make_step(game, toy_players.OPTIMIZER, plays=True))
    state, data = toy_players.state(seed=3), toy_players.batch(64)
    gaps = []
    for turn in [GENERATOR, RERANKER] * 60:
        state, terms = step(state, data, turn)
        gaps.append(float(terms["regulariser"]))
    assert gaps[-2] < 0.2 * gaps[0]


@pytest.mark.parametrize("noise", [None, toy_players.NOISE], ids=["observed", "noise"])
def test_a_loss_of_its_own_replaces_those_of_the_game(noise):
    def own(params, batch, *, key=None, train=False):
        assert train
        return 3.0 * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params))

    state, data = toy_players.state(), toy_players.batch()
    game = toy_players.GAME._replace(noise=noise, own_loss=own)
    _, terms = jax.jit(make_step(game, toy_players.OPTIMIZER, plays=False))(state, data, RERANKER)
    expected = own(state.params["reranker"], data, train=True)
    np.testing.assert_allclose(terms["own"], expected, rtol=1e-6)
    assert float(terms["direct"]) == float(terms["denoise"]) == 0
