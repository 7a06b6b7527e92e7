"""IRGAN: the draws, the discriminator's loss, and REINFORCE against its closed form."""

from functools import partial

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_contract import CASES, model_of

from dnr_jax import ops
from dnr_jax.nn.losses import bce, softmax_cross_entropy
from dnr_jax.rerankers import build
from dnr_jax.rerankers.irgan import discriminator_loss, draw, generator_loss
from dnr_jax.types import apply

BATCH = factories.make_batch(B=6)
REAL = BATCH.weights > 0
KEYS = ops.per_request_keys(jax.random.key(5), BATCH.request.index)
RNG = np.random.default_rng(0)
G, F = (jnp.asarray(RNG.normal(size=BATCH.scores.shape), jnp.float32) for _ in range(2))


def test_draws_follow_the_softmax_over_what_may_be_drawn():
    count = 20_000
    found = np.asarray(draw(KEYS, G, REAL, count=count))
    for row, g, real in zip(found, np.asarray(G, np.float64), np.asarray(REAL), strict=True):
        chances = np.exp(g) * real / (np.exp(g) * real).sum()
        shares = np.bincount(row, minlength=len(g)) / count
        assert np.all(shares[~real] == 0)
        # Five standard deviations of a share.
        assert np.all(abs(shares - chances) <= 5 * np.sqrt(chances * (1 - chances) / count))


def test_a_draw_does_not_depend_on_the_batch():
    whole = draw(KEYS, G, REAL, count=4)
    np.testing.assert_array_equal(draw(KEYS[2:4], G[2:4], REAL[2:4], count=4), whole[2:4])


def test_the_discriminator_weighs_draws_like_positives():
    negatives = REAL & (BATCH.labels == 0)
    fakes = draw(KEYS, G, negatives, count=4)
    total = count = 0.0
    for f, z, w, drawn in zip(
        *(np.asarray(a, np.float64) for a in (F, BATCH.labels, BATCH.weights)),
        np.asarray(fakes),
        strict=True,
    ):
        liked = z * w
        total += (liked * np.log1p(np.exp(-f))).sum()
        count += liked.sum()
        if ((z == 0) & (w > 0)).any():
            total += liked.sum() * np.log1p(np.exp(f[drawn])).mean()
            count += liked.sum()
    assert count > 0
    np.testing.assert_allclose(discriminator_loss(F, BATCH, fakes), total / count, rtol=1e-5)


def test_reinforce_is_the_gradient_of_the_expected_reward():
    where, count = REAL[:1], 40_000
    reward = 2 * jax.nn.sigmoid(F[:1]) - 1

    def sampled(g):
        own = draw(KEYS[:1], g, where, count=count)
        return generator_loss(g, where, own, jnp.take_along_axis(reward, own, axis=1))

    def expected(g):
        chances = jnp.exp(ops.masked_log_softmax(g, where)) * where
        return -(chances * reward).sum()

    found, exact = jax.grad(sampled)(G[:1]), jax.grad(expected)(G[:1])
    assert float(jnp.abs(exact).max()) > 0.05
    np.testing.assert_allclose(found, exact, atol=0.01)


def test_equal_rewards_teach_nothing():
    own = draw(KEYS, G, REAL, count=4)
    slope = jax.grad(generator_loss)(G, REAL, own, jnp.full(own.shape, 0.25))
    np.testing.assert_array_equal(slope, 0.0)


def moved(gradient):
    return {
        name
        for name, group in gradient.items()
        if any(bool((leaf != 0).any()) for leaf in jax.tree.leaves(group))
    }


def test_both_play_after_each_was_trained_alone():
    stages = model_of("irgan").reranker.stages
    assert [stage.name for stage in stages] == ["discriminator", "generator", "game"]
    assert [stage.groups for stage in stages] == [
        ("discriminator",),
        ("generator",),
        (),
    ]  # () = all


def test_no_term_of_the_game_reaches_the_other_player():
    def terms(g, f):
        own = draw(KEYS, g, REAL, count=4)
        rewards = 2 * jax.nn.sigmoid(jnp.take_along_axis(f, own, axis=1)) - 1
        fakes = draw(KEYS, g, REAL & (BATCH.labels == 0), count=4)
        return discriminator_loss(f, BATCH, fakes), generator_loss(g, REAL, own, rewards)

    slopes = jax.jacrev(terms, argnums=(0, 1))(G, F)
    reached = [[bool((slope != 0).any()) for slope in term] for term in slopes]
    assert reached == [[False, True], [True, False]]  # L_D, L_G by g, f


def test_a_discriminator_that_cannot_tell_leaves_the_generator_alone():
    model = model_of("irgan")
    judge = model.params["discriminator"]
    blind = judge | {"head": jax.tree.map(jnp.zeros_like, judge["head"])}
    params = model.params | {"discriminator": blind}
    gradient = model.lessons(params, model.batch, jax.random.key(1))[2][1]
    assert moved(gradient) == {"discriminator"}


def test_pre_training_is_by_the_plain_losses():
    model = model_of("irgan")
    first, second = (factories.quick_jit(stage.loss) for stage in model.reranker.stages[:2])
    knobs = factories.SMALL | CASES["irgan"].knobs | {"ranked_by": "discriminator"}
    judge = build("irgan", factories.make_task(), **knobs)
    batch = model.batch
    found = model.logits(batch)
    expected = softmax_cross_entropy(found, batch.labels, batch.weights)
    np.testing.assert_allclose(second(model.params, batch), expected, rtol=1e-5)
    logits = factories.quick_jit(partial(apply, judge))(model.params, batch.request, batch.scores)
    assert bool((logits != found).any())
    expected = bce(logits, batch.labels, batch.weights)
    np.testing.assert_allclose(first(model.params, batch), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        ("draws", 0, "draws is 0: it must be 1 or more"),
        ("draw_temperature", 0.0, "draw_temperature is 0.0: it must be above 0"),
        ("ranked_by", "judge", "ranked_by is 'judge': it must be one of generator, discriminator"),
    ],
)
def test_knobs_outside_their_range_are_refused(knob, value, message):
    with pytest.raises(ValueError, match=message):
        build("irgan", factories.make_task(), **{knob: value})
