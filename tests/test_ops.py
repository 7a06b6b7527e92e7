"""Masked operations against plain numpy on the real entries alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from dnr_jax import ops

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(6, 9)).astype(np.float32)
WHERE = RNG.random((6, 9)) < 0.6
WHERE[0] = False
WHERE[1] = True
GARBAGE = np.where(WHERE, VALUES, np.nan).astype(np.float32)


def test_log_softmax_sees_real_entries_only():
    result = ops.masked_log_softmax(GARBAGE, WHERE)
    for row, real, out in zip(VALUES, WHERE, result, strict=True):
        if real.any():
            np.testing.assert_allclose(out[real], special.log_softmax(row[real]), rtol=1e-5)
        assert (out[~real] == 0).all()


def test_weighted_mean_ignores_garbage_and_empty_weights():
    weights = np.where(WHERE, RNG.random(WHERE.shape), 0).astype(np.float32)
    expected = np.average(VALUES[WHERE], weights=weights[WHERE])
    np.testing.assert_allclose(ops.weighted_mean(GARBAGE, weights), expected, rtol=1e-5)
    assert ops.weighted_mean(GARBAGE, np.zeros_like(weights)) == 0
    gradient = jax.grad(ops.weighted_mean)(GARBAGE, weights)
    np.testing.assert_allclose(gradient, weights / weights.sum(), rtol=1e-5)


def test_min_max_spans_the_real_entries():
    result = ops.min_max(GARBAGE, WHERE)
    for row, real, out in zip(VALUES, WHERE, result, strict=True):
        if real.sum() > 1:
            expected = (row[real] - row[real].min()) / np.ptp(row[real])
            np.testing.assert_allclose(out[real], expected, atol=1e-6)
        assert (out[~real] == 0).all()
    flat = ops.min_max(jnp.full((1, 3), 7.0), jnp.array([[True, True, False]]))
    np.testing.assert_array_equal(flat, [[0.5, 0.5, 0.0]])
    gradient = jax.grad(lambda v: ops.min_max(v, WHERE).sum())(VALUES)
    assert np.isfinite(gradient).all()


def test_ranks_are_those_of_scipy():
    result = ops.ranks(GARBAGE, WHERE)
    for row, real, out in zip(VALUES, WHERE, result, strict=True):
        if real.any():
            np.testing.assert_array_equal(out[real], stats.rankdata(-row[real]))
        assert (out[~real] == 0).all()


@pytest.mark.parametrize("chosen", [[0, 1, 2, 3], [3, 1], [2]])
def test_draws_of_a_request_do_not_depend_on_its_batch(chosen):
    def draw(key, scale):
        return scale * jax.random.normal(key, (5,))

    index, scale = np.arange(4, dtype=np.uint32) + 10, np.arange(1.0, 5.0)
    everything = ops.per_request(draw, jax.random.key(0), index, scale)
    some = ops.per_request(draw, jax.random.key(0), index[chosen], scale[chosen])
    np.testing.assert_array_equal(some, everything[np.array(chosen)])
    assert len({row.tobytes() for row in np.asarray(everything / scale[:, None])}) == 4
