"""The kernel sums against SciPy, and the binned method against the exact one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factories import quick_jit
from scipy import stats

from dnr_jax.divergences import kernels

H = 0.05


@pytest.fixture(scope="module")
def sums():
    """Jitted value and gradient of a weighted total, by method."""

    def make(method):
        def value(points, samples, weights):
            return kernels.log_density(points, samples, weights, bandwidth=H, method=method)

        def total(points, samples, weights, g):
            return jnp.sum(g * value(points, samples, weights))

        return quick_jit(value), quick_jit(jax.grad(total, argnums=(0, 1, 2)))

    return {method: make(method) for method in kernels.LOG_DENSITIES}


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    points = np.concatenate([[0.0, 1.0, 0.5, 0.5], random.random(329)])
    samples = np.concatenate([[0.0, 0.0, 1.0], random.beta(2, 3, 300)])
    weights = random.random(303) * (random.random(303) < 0.8)
    arrays = (points, samples, weights / weights.sum())
    return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


def reference(points, samples, weights):
    keep = np.asarray(weights) > 0
    b, w = np.asarray(samples, np.float64)[keep], np.asarray(weights, np.float64)[keep]
    kernel = stats.norm.logpdf(np.asarray(points, np.float64)[:, None], b, H)
    return np.logaddexp.reduce(kernel + np.log(w), axis=1)


def test_exact_agrees_with_scipy(sums, data):
    value = sums["exact"][0](*data)
    np.testing.assert_allclose(value, reference(*data), atol=1e-4, rtol=1e-6)
    # gaussian_kde takes its bandwidth as a share of the weighted standard deviation.
    points, samples, weights = (np.asarray(a, np.float64) for a in data)
    spread = np.sqrt(np.cov(samples, aweights=weights))
    kde = stats.gaussian_kde(samples, bw_method=H / spread, weights=weights)
    np.testing.assert_allclose(np.exp(value), kde(points), rtol=1e-4)


def test_exact_gradients_agree_with_plain_autodiff(sums, data):
    points, samples, weights = data
    keep = np.asarray(weights) > 0
    samples, weights = samples[keep], weights[keep]
    g = jnp.cos(jnp.arange(points.shape[0], dtype=jnp.float32))

    def plain(a, b, w):
        return jnp.sum(g * jax.nn.logsumexp(jnp.log(w) - 0.5 * ((a[:, None] - b) / H) ** 2, axis=1))

    expected = quick_jit(jax.grad(plain, argnums=(0, 1, 2)))(points, samples, weights)
    found = sums["exact"][1](points, samples, weights, g)
    for name, e, f in zip(("points", "samples", "weights"), expected, found, strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-3, atol=1e-4 * np.abs(e).max(), err_msg=name)


def test_binned_agrees_with_exact(sums, data):
    points, samples, weights = data
    error = sums["binned"][0](*data) - sums["exact"][0](*data)
    assert np.abs(error).max() < 1e-2
    assert np.median(np.abs(error)) < 1e-4
    g = jnp.full(points.shape, 1.0 / points.shape[0], jnp.float32)
    exact, binned = (sums[m][1](points, samples, weights, g) for m in ("exact", "binned"))
    for e, b in zip(exact[:2], binned[:2], strict=True):
        assert np.dot(e, b) / np.linalg.norm(e) / np.linalg.norm(b) > 0.9999
        assert np.linalg.norm(b) / np.linalg.norm(e) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("method", kernels.LOG_DENSITIES)
def test_far_tail_keeps_value_and_direction(method, sums):
    """Nineteen bandwidths away the density is exp(-160), far below float32; its slope is not."""
    samples, weights = np.full(303, 0.98, np.float32), np.full(303, 1 / 303, np.float32)
    points = np.full(333, 0.05, np.float32)
    value = sums[method][0](points, samples, weights)
    slope = sums[method][1](points, samples, weights, np.ones(333, np.float32))[0]
    np.testing.assert_allclose(value, stats.norm.logpdf(0.05, 0.98, H), rtol=1e-2)
    np.testing.assert_allclose(slope, (0.98 - 0.05) / H**2, rtol=1e-2)


@pytest.mark.parametrize("method", kernels.LOG_DENSITIES)
def test_density_integrates_to_one(method, sums):
    samples = jnp.asarray(np.random.default_rng(1).uniform(0.4, 0.6, 303), jnp.float32)
    grid = jnp.linspace(0, 1, 333)
    density = np.exp(sums[method][0](grid, samples, np.full(303, 1 / 303, np.float32)))
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-3)


def test_linear_bins_keep_mass_and_mean():
    values = jnp.asarray(np.random.default_rng(0).random(50), jnp.float32)
    weights = jnp.linspace(0, 1, 50)
    bins = kernels.linear_bins(values, weights, nodes=17)
    np.testing.assert_allclose(bins.sum(), weights.sum(), rtol=1e-5)
    np.testing.assert_allclose(bins @ np.linspace(0, 1, 17), weights @ values, rtol=1e-5)
    corners = kernels.linear_bins(jnp.float32([0, 1, 0.5]), jnp.ones(3), nodes=3)
    np.testing.assert_array_equal(corners, [1, 1, 1])


def test_fft_smoothing_is_the_plain_convolution():
    counts = np.random.default_rng(0).random(33).astype(np.float32)
    grid = np.linspace(0, 1, 33)
    expected = np.exp(-0.5 * ((grid[:, None] - grid) / 0.2) ** 2) @ counts
    np.testing.assert_allclose(kernels.fft_smooth(counts, bandwidth=0.2), expected, rtol=1e-5)


def test_memory_of_the_exact_method_is_linear():
    """20,000 x 20,000 floats would be 1.6 GB; the compiled program holds a few blocks."""
    array = jax.ShapeDtypeStruct((20_000,), jnp.float32)

    def total(points, samples, weights):
        args = (points, samples, weights)
        return kernels.log_density(*args, bandwidth=H, method="exact").sum()

    compiled = jax.jit(jax.grad(total, argnums=(0, 1))).lower(array, array, array).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 100e6


@pytest.mark.parametrize("bandwidth", [kernels.LEAST_BANDWIDTH, 1.0])
@pytest.mark.parametrize("method", ["exact", "pallas"])
def test_the_narrowest_and_the_widest_kernel_are_finite(bandwidth, method):
    points, samples = jnp.float32([0, 0.3, 1]), jnp.float32([0, 1, 1])
    weights = jnp.full(3, 1 / 3)

    def total(points, samples, weights):
        given = (points, samples, weights)
        return kernels.log_density(*given, bandwidth=bandwidth, method=method).sum()

    value, slopes = jax.value_and_grad(total, (0, 1, 2))(points, samples, weights)
    assert np.isfinite(value)
    assert all(np.isfinite(slope).all() for slope in slopes)


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match=r"there is no density method 'fast'.*binned, exact"):
        kernels.log_density(*[jnp.ones(2)] * 3, bandwidth=0.1, method="fast")
