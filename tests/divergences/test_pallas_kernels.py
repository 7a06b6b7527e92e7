"""The Pallas kernels: interpreted here, lowered for TPU and CUDA, run on a GPU where one is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factories import quick_jit
from jax import export

from dnr_jax.divergences import kernels, pallas_gpu, pallas_sums, pallas_tiles

N, M = 700, 900
ARGUMENTS = (0, 1, 2)


def weighted_total(log_sums):
    def total(a, b, c):
        return jnp.sum(jnp.cos(jnp.arange(a.shape[0], dtype=jnp.float32)) * log_sums(a, b, c))

    return total


@pytest.fixture(scope="module")
def data():
    """Coordinates in units of sqrt(2) bandwidths; an outlier, and samples of weight 0."""
    random = np.random.default_rng(0)
    a, b = random.uniform(0, 14, N), random.uniform(0, 14, M)
    a[3] = 40.0
    weights = random.random(M) * (random.random(M) < 0.8)
    arrays = (a, b, np.log(np.maximum(weights / weights.sum(), 1e-300)))
    return tuple(jnp.asarray(x, jnp.float32) for x in arrays)


def reference(a, b, c):
    """Log-sums and the gradient of `weighted_total`, in float64 and without a loop."""
    a, b, c = (np.asarray(x, np.float64) for x in (a, b, c))
    gap = a[:, None] - b
    sums = np.logaddexp.reduce(c - gap**2, axis=1)
    share = np.cos(np.arange(a.size))[:, None] * np.exp(c - gap**2 - sums[:, None])
    return sums, (-2 * (share * gap).sum(1), 2 * (share * gap).sum(0), share.sum(0))


@pytest.mark.parametrize("log_sums", [pallas_sums.log_sums, kernels._log_sums])
def test_values_and_gradients_against_float64(log_sums, data):
    sums, slopes = reference(*data)
    np.testing.assert_allclose(quick_jit(log_sums)(*data), sums, rtol=1e-6, atol=2e-6)
    found = quick_jit(jax.grad(weighted_total(log_sums), ARGUMENTS))(*data)
    for f, e in zip(found, slopes, strict=True):
        np.testing.assert_allclose(f, e, rtol=0, atol=2e-4 * np.abs(e).max())


@pytest.mark.parametrize("sizes", [(1, 1), (1, 700), (513, 1)])
def test_any_size_is_padded(sizes, data):
    a, b, c = data[0][: sizes[0]], data[1][: sizes[1]], data[2][: sizes[1]]
    found = quick_jit(pallas_sums.log_sums)(a, b, c)
    np.testing.assert_allclose(found, reference(a, b, c)[0], rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("form", ["forward", "gradient"])
def test_lowers_without_the_hardware(platform, form):
    function = pallas_sums.log_sums
    if form == "gradient":
        function = jax.grad(weighted_total(function), ARGUMENTS)
    shape = jax.ShapeDtypeStruct((25_600,), jnp.float32)
    # Mosaic GPU programs are tied to their JAX version: exported here to be looked at only.
    check = export.DisabledSafetyCheck.custom_call("mosaic_gpu_v2")
    lower = export.export(jax.jit(function), platforms=[platform], disabled_checks=[check])
    text = lower(shape, shape, shape).mlir_module()
    kernels_in_it = text.count({"tpu": "@tpu_custom_call", "cuda": "@mosaic_gpu_v2"}[platform])
    assert kernels_in_it == {"forward": 1, "gradient": 3}[form]


def test_gpu_kernels_interpreted_agree_with_the_portable_ones(data):
    params = pytest.importorskip("jax._src.pallas.mosaic_gpu.interpret.params")
    random = np.random.default_rng(1)
    x, u = (jnp.asarray(random.uniform(0, 9, 2 * pallas_gpu.ROWS), jnp.float32) for _ in "xu")
    y, v, w = (jnp.asarray(random.uniform(0, 9, 512), jnp.float32) for _ in "yvw")
    u, v = -u, -v
    with params.force_gpu_interpret_mode(params.InterpretGPUParams()):
        sums = quick_jit(pallas_gpu.log_sums)(x, y, v)
        mass, pull = quick_jit(pallas_gpu.pulls)(x, u, y, v, w)
    expected = pallas_tiles.log_sums(x, y, v, interpret=True)
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-5)
    for found, e in zip(
        (mass, pull), pallas_tiles.pulls(x, u, y, v, w, interpret=True), strict=True
    ):
        np.testing.assert_allclose(found, e, rtol=1e-4, atol=1e-5 * np.abs(e).max())


@pytest.mark.gpu
def test_runs_on_a_gpu(data):
    try:
        device = jax.devices("gpu")[0]
    except RuntimeError:
        pytest.skip("no GPU here")
    arrays = jax.device_put(data, device)
    sums, slopes = reference(*data)
    np.testing.assert_allclose(jax.jit(pallas_sums.log_sums)(*arrays), sums, rtol=1e-5, atol=1e-5)
    found = jax.jit(jax.grad(weighted_total(pallas_sums.log_sums), ARGUMENTS))(*arrays)
    for f, e in zip(found, slopes, strict=True):
        np.testing.assert_allclose(f, e, rtol=0, atol=1e-3 * np.abs(e).max())
