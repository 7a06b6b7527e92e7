"""AdvIR: the perturbation, the weights of sampled negatives, and the two halves of its loss."""

from functools import cache

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_contract import model_of

from dnr_jax.nn.losses import bce
from dnr_jax.rerankers import build
from dnr_jax.rerankers.advir import adversarial_loss, attack, direction, sampling_weights


def test_every_direction_has_length_one_and_no_gradient_has_none():
    slopes = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    slopes[1, 2] = 0.0
    found = direction(jnp.asarray(slopes))
    lengths = np.linalg.norm(slopes, axis=-1)
    expected = np.divide(slopes, lengths[..., None], where=lengths[..., None] > 0, out=0 * slopes)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_negatives_weigh_by_the_softmax_of_their_logits():
    batch = factories.make_batch(B=10)
    logits = np.random.default_rng(1).normal(size=batch.scores.shape).astype(np.float32)
    found = np.asarray(sampling_weights(logits, batch.labels, batch.weights))
    for row, s, z, w in zip(found, logits, batch.labels, batch.weights, strict=True):
        z, w = np.asarray(z), np.asarray(w)
        negative = (z == 0) & (w > 0)
        powers = np.exp(s[negative].astype(np.float64))
        if negative.any():
            np.testing.assert_allclose(
                row[negative], powers / powers.sum() * negative.sum(), rtol=1e-5
            )
        np.testing.assert_array_equal(row[~negative], w[~negative])


@cache
def losses(radius, weight):
    """Value and parameter gradient of the loss at one radius and weight, dropout off."""
    model = model_of("advir")
    loss = adversarial_loss(model.reranker, radius=radius, weight=weight)
    return factories.quick_jit(jax.value_and_grad(loss))(model.params, model.batch)


def plain():
    model, batch = model_of("advir"), model_of("advir").batch
    logits = model.logits(batch)
    return bce(logits, batch.labels, sampling_weights(logits, batch.labels, batch.weights))


def test_without_perturbation_it_is_the_plain_loss_twice():
    np.testing.assert_allclose(losses(0.0, 0.7)[0], 1.7 * plain(), rtol=1e-5)
    np.testing.assert_allclose(losses(0.3, 0.0)[0], plain(), rtol=1e-5)


def test_the_perturbation_is_against_the_model():
    attacked = losses(1e-2, 1.0)[0] - plain()
    assert float(attacked) > float(plain()) + 1e-5


def test_the_direction_is_held_fixed():
    # Along a line of parameters: the derivative is that of the loss at a delta that does not move.
    model, batch = model_of("advir"), model_of("advir").batch
    memory = model.reranker.encode(model.params, batch.request)
    logits = model.logits(batch)
    drawn = sampling_weights(logits, batch.labels, batch.weights)

    def judge(params, h):
        logits = model.reranker.decode(params, memory._replace(inner=h), batch.scores)
        return bce(logits, batch.labels, drawn)

    delta = 0.3 * direction(jax.grad(judge, argnums=1)(model.params, memory.inner))

    def fixed(params):
        h = model.reranker.encode(params, batch.request).inner
        return judge(params, h) + judge(params, h + delta)

    expected = factories.quick_jit(jax.grad(fixed))(model.params)
    for one, other in zip(
        jax.tree.leaves(losses(0.3, 1.0)[1]), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_dropout_changes_neither_the_negatives_nor_the_directions():
    model = model_of("advir")
    noisy = build("advir", factories.make_task(), **(factories.SMALL | {"dropout": 0.5}))
    run = factories.quick_jit(lambda params, batch: attack(noisy, params, batch))
    drawn, worst = run(model.params, model.batch)
    logits, batch = model.logits(model.batch), model.batch
    np.testing.assert_allclose(
        drawn, sampling_weights(logits, batch.labels, batch.weights), rtol=1e-5
    )
    lengths = np.linalg.norm(worst, axis=-1)
    np.testing.assert_allclose(lengths[lengths > 0], 1.0, rtol=1e-5)
    assert (lengths > 0).sum() == (np.asarray(drawn) > 0).sum()


@pytest.mark.parametrize("knob", ["perturbation", "adversarial_weight"])
def test_negative_knobs_are_refused(knob):
    with pytest.raises(ValueError, match=f"{knob} is -1: it must be 0 or more"):
        build("advir", factories.make_task(), **{knob: -1})
