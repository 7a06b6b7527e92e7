"""DiffuRec's own properties: the schedule in closed form, the reverse process, its loss."""

from functools import cache

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax import types
from dnr_jax.rerankers import build
from dnr_jax.rerankers.diffurec import draw_positive
from dnr_jax.rerankers.diffurec.diffusion import diffuse, make_schedule, truncated_linear

KNOBS = {
    "diffusion_steps": 6,
    "reverse_steps": 4,
    "reverse_samples": 2,
    "uncertainty": 0.0,
    "score_entry": "none",
}
BATCH = factories.make_batch(seed=3)
RNG = np.random.default_rng(0)


def make(**knobs):
    return build("diffurec", factories.make_task(), **(factories.SMALL | KNOBS | knobs))


@cache
def parameters(**knobs):
    return factories.random_params(make(**knobs), BATCH)


@cache
def scorer(**knobs):
    model = make(**knobs)
    return factories.quick_jit(lambda *inputs: types.apply(model, *inputs))


def logits(request, **knobs):
    return np.asarray(scorer(**knobs)(parameters(**knobs), request, BATCH.scores))


def test_the_papers_schedule():
    betas = truncated_linear(32)
    np.testing.assert_allclose([betas[0], betas[-1]], [0.013125, 0.635], rtol=1e-12)
    kept = make_schedule(betas, 32).kept
    np.testing.assert_allclose(kept[[0, -1]], [0.986875, 9.9e-7], rtol=5e-3)


@pytest.mark.parametrize("total", [1, 2, 5, 20, 21, 32, 1000])
def test_every_length_has_betas_in_range(total):
    betas = truncated_linear(total)
    assert betas.shape == (total,)
    assert np.all((betas > 0) & (betas < 1))
    # 1000 steps end below the smallest float32: compare before rounding.
    assert np.all(np.diff(np.cumprod(1 - betas)) < 0)


@pytest.mark.parametrize("count", [1, 3, 5, 12])
def test_posterior_coefficients_are_gaussian_conditioning(count):
    """Regress x_r on (x_t, x_0) by the covariances of the chain, step r before step t."""
    betas = RNG.uniform(0.05, 0.6, 12)
    schedule = make_schedule(betas, count)
    chain = np.concatenate([[1.0], np.cumprod(1 - betas)])
    assert schedule.steps[-1] == 11
    assert len(set(schedule.steps)) == count
    before = 0
    for i, step in enumerate(schedule.steps):
        a, b = chain[before], chain[step + 1]
        # With x_0 given: var x_t = 1 - b, cov(x_r, x_t) = sqrt(b / a) (1 - a).
        slope = np.sqrt(b / a) * (1 - a) / (1 - b)
        np.testing.assert_allclose(schedule.from_noisy[i], slope, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(
            schedule.from_start[i], np.sqrt(a) - slope * np.sqrt(b), rtol=1e-5
        )
        np.testing.assert_allclose(schedule.spread[i] ** 2, (i > 0) * (1 - b / a), rtol=1e-5)
        np.testing.assert_allclose(schedule.kept[i], b, rtol=1e-5)
        before = step + 1
    assert (schedule.from_noisy[0], schedule.spread[0]) == (0, 0)
    np.testing.assert_allclose(schedule.from_start[0], 1, rtol=1e-6)


def test_noising_at_once_has_the_law_of_noising_step_by_step():
    betas = truncated_linear(6)
    x = np.full(40_000, 1.5)
    for beta in betas[:4]:
        x = np.sqrt(1 - beta) * x + np.sqrt(beta) * RNG.normal(size=x.shape)
    noise = jnp.asarray(RNG.normal(size=(40_000, 1)), jnp.float32)
    kept = jnp.full(40_000, make_schedule(betas, 6).kept[3])
    once = np.asarray(diffuse(jnp.full((40_000, 1), 1.5), noise, kept))
    np.testing.assert_allclose([once.mean(), once.var()], [x.mean(), x.var()], atol=0.03)


def test_without_lambda_no_draw_matters():
    moved = BATCH.request.replace(index=BATCH.request.index + 1)
    np.testing.assert_array_equal(logits(BATCH.request), logits(moved))


def test_only_the_latest_event_has_a_place():
    full = BATCH.request.replace(history_where=jnp.ones_like(BATCH.request.history_where))
    early = full.replace(history=full.history[:, jnp.array([2, 0, 3, 1, 4])])
    late = full.replace(history=full.history[:, ::-1])
    np.testing.assert_allclose(logits(full), logits(early), rtol=1e-4, atol=1e-5)
    assert np.abs(logits(full) - logits(late)).max() > 1e-2


def test_more_padding_changes_nothing():
    request = BATCH.request
    longer = request.replace(
        history=jnp.pad(request.history, [(0, 0), (3, 0), (0, 0)], constant_values=3),
        history_where=jnp.pad(request.history_where, [(0, 0), (3, 0)]),
    )
    np.testing.assert_allclose(logits(request), logits(longer), rtol=1e-4, atol=1e-5)


def test_many_samples_agree():
    """Means of many draws of the reverse process differ less than single draws do."""
    moved = BATCH.request.replace(index=BATCH.request.index + 1)

    def gap(count):
        encode = make(uncertainty=1.0, reverse_samples=count).encode
        run = factories.quick_jit(lambda p, request: encode(p, request).inner[0])
        return float(jnp.abs(run(parameters(), BATCH.request) - run(parameters(), moved)).mean())

    assert 0 < gap(64) < gap(1) / 4  # 1 / 8 is expected


def test_a_positive_is_drawn_in_proportion_to_its_weight():
    gains = jnp.array([0.0, 1.0, 0.0, 3.0])
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = np.bincount(jax.vmap(draw_positive, (0, None))(keys, gains), minlength=4) / 4000
    assert drawn[0] == drawn[2] == 0
    np.testing.assert_allclose(drawn[3], 0.75, atol=0.03)


@cache
def lesson(uncertainty):
    (stage,) = make(uncertainty=uncertainty).stages
    return factories.quick_jit(jax.value_and_grad(stage.loss))


def test_the_loss_is_the_cross_entropy_of_the_judged_candidates():
    """Without lambda xhat_0 depends on no draw, so that the logits are those of the scorer."""
    batch = BATCH.replace(weights=BATCH.weights.at[0, 0].set(0.0))
    total, count = 0.0, 0
    for row, z, w in zip(logits(batch.request), batch.labels, batch.weights, strict=True):
        seen, gains = np.asarray(w) > 0, np.asarray(z * w)
        if gains.sum() > 0:
            s = np.asarray(row, np.float64)
            total -= (gains / gains.sum() * (s - np.log(np.exp(s[seen]).sum()))).sum()
            count += 1
    assert 0 < count < 6
    np.testing.assert_allclose(lesson(0.0)(parameters(), batch)[0], total / count, rtol=1e-5)


def test_requests_without_positives_drop_out_of_the_loss():
    found = lesson(1.0)(parameters(), BATCH)[0]
    some = (BATCH.labels * BATCH.weights).sum(axis=1, keepdims=True) > 0
    unjudged = BATCH.replace(weights=BATCH.weights * some)
    np.testing.assert_allclose(found, lesson(1.0)(parameters(), unjudged)[0], rtol=1e-6)
    empty = BATCH.replace(labels=jnp.zeros_like(BATCH.labels))
    value, slope = lesson(1.0)(parameters(), empty)
    assert float(value) == 0
    assert all(bool((leaf == 0).all()) for leaf in jax.tree.leaves(slope))


def test_the_draws_of_a_request_are_its_own():
    """Reversed with their numbers, requests lose the same; with new numbers they do not."""
    found = lesson(1.0)(parameters(), BATCH)[0]
    backwards = jax.tree.map(lambda a: a[::-1], BATCH)
    np.testing.assert_allclose(lesson(1.0)(parameters(), backwards)[0], found, rtol=1e-5)
    moved = BATCH.replace(request=BATCH.request.replace(index=BATCH.request.index + 1))
    assert abs(float(lesson(1.0)(parameters(), moved)[0] - found)) > 1e-3


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"heads": 3}, "width is 8, which 3 heads cannot share"),
        ({"diffusion_steps": 0}, "diffusion_steps is 0: it must be 1 or more"),
        ({"reverse_steps": 7}, "reverse_steps is 7: it must be at most diffusion_steps, 6"),
        ({"reverse_steps": 0}, "reverse_steps is 0: it must be 1 or more"),
        ({"reverse_samples": 0}, "reverse_samples is 0: it must be 1 or more"),
        ({"uncertainty": -0.1}, "uncertainty is -0.1: it must be 0 or more"),
        ({"uncertainty": float("nan")}, "uncertainty is nan: it must be 0 or more"),
        ({"dropout": 1.0}, "dropout is 1.0: it must be 0 or more and below 1"),
        ({"score_entry": "plus"}, "score_entry is 'plus': it must be one of none"),
    ],
)
def test_bad_knobs_are_named(knobs, message):
    with pytest.raises(ValueError, match=message):
        make(**knobs)
