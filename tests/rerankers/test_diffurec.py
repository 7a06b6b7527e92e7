"""DiffuRec's own properties: the schedule in closed form, the reverse process, its loss."""

from functools import cache

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax import ops, types
from dnr_jax.nn.diffusion import Approximator, diffuse, make_schedule, truncated_linear
from dnr_jax.nn.dropout import identity
from dnr_jax.rerankers.diffurec import diffurec, draw_positive

KNOBS = {
    "width": 8,
    "history_layers": 1,
    "heads": 2,
    "feed_forward": 8,
    "dropout": 0.1,
    "diffusion_steps": 6,
    "reverse_steps": 4,
    "uncertainty": 0.0,
    "score_entry": "none",
    "score_place": "late",
}
BATCH = factories.make_batch(seed=3)
RNG = np.random.default_rng(0)


def make(**knobs):
    return diffurec(factories.make_spec(), **(KNOBS | knobs))


@cache
def parameters(**knobs):
    shapes = jax.eval_shape(make(**knobs).init, jax.random.key(0), BATCH.request, BATCH.scores)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: jnp.asarray(0.5 * rng.normal(size=a.shape), a.dtype), shapes)


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


def test_draws_matter_through_lambda_alone():
    moved = BATCH.request.replace(index=BATCH.request.index + 1)
    np.testing.assert_array_equal(logits(BATCH.request), logits(moved))
    real = np.asarray(BATCH.request.where)
    other = np.abs(logits(BATCH.request, uncertainty=1.0) - logits(moved, uncertainty=1.0))
    assert other[real].max() > 1e-2


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


def reference(params, request, count, *, detach):
    """The reverse process, step by step and written out."""
    rows = {key: params["embedding"][key] for key in params["embedding"]}
    model = make(uncertainty=1.0, reverse_steps=1)
    del rows, model
    raise NotImplementedError
