"""The layers equal those of linen: parameters, values and gradients."""

import chex
import factories
import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from dnr_jax.nn import layers
from dnr_jax.nn.attention import attend
from dnr_jax.nn.layers import Dense, LayerNorm

X = jax.random.normal(jax.random.key(0), (3, 4, 5)) * 3 + 1
PULL = jax.random.normal(jax.random.key(1), (3, 4, 5))


def value_and_slopes(function, *arrays):
    total = factories.quick_jit(jax.value_and_grad(lambda *a: (function(*a) * PULL).sum(), (0, 1)))
    return factories.quick_jit(function)(*arrays), total(*arrays)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(LayerNorm(), nn.LayerNorm()), (Dense(5), nn.Dense(5))]
)
def test_a_layer_is_that_of_linen(ours, theirs):
    params, reference = (module.init(jax.random.key(2), X) for module in (ours, theirs))
    chex.assert_trees_all_equal(params, reference)
    moved = jax.tree.map(lambda leaf: leaf + 0.1, params)
    expected = value_and_slopes(lambda p, x: theirs.apply(p, x), moved, X)
    chex.assert_trees_all_close(
        value_and_slopes(lambda p, x: ours.apply(p, x), moved, X), expected, rtol=1e-5, atol=1e-5
    )


def test_the_norm_of_accelerators_is_that_of_a_cpu(monkeypatch):
    """There means are sums, which XLA joins with what stands around them; here products."""
    norm, params = LayerNorm(), LayerNorm().init(jax.random.key(2), X)

    def slopes(params, x):
        return jax.value_and_grad(lambda p, x: (norm.apply(p, x) * PULL).sum(), (0, 1))(params, x)

    here = jax.jit(slopes)
    for platform, products in (("cpu", True), ("tpu", False), ("cuda", False)):
        lowered = here.trace(params, X).lower(lowering_platforms=(platform,)).as_text()
        assert ("dot_general" in lowered) == products
    expected = here(params, X)
    monkeypatch.setattr(layers, "_mean", layers._mean_by_sum)
    found = jax.jit(lambda *a: slopes(*a))(params, X)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_constant_row_has_a_finite_norm():
    params = LayerNorm().init(jax.random.key(0), X)
    flat = jnp.full((1, 2, 5), 7.0)
    slope = jax.grad(lambda x: LayerNorm().apply(params, x).sum())(flat)
    assert bool(jnp.isfinite(slope).all())


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_that_of_jax(causal):
    keys = jax.random.split(jax.random.key(3), 4)
    q, k, v, pull = (jax.random.normal(key, (3, 6, 2, 4)) for key in keys)
    where = jnp.arange(6) < jnp.array([[6], [4], [1]])

    def project(attention):
        def total(q, k, v):
            mixed = attention(q, k, v)
            return (mixed * pull).sum(), mixed

        return factories.quick_jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))(q, k, v)

    def reference(q, k, v):
        seen = where[:, None, None, :]
        return jax.nn.dot_product_attention(q, k, v, mask=seen, is_causal=causal)

    ours = project(lambda q, k, v: attend(q, k, v, where, causal=causal))
    chex.assert_trees_all_close(ours, project(reference), rtol=1e-5, atol=1e-5)
    nothing = attend(q, k, v, jnp.zeros_like(where), causal=causal)
    assert bool(jnp.isfinite(nothing).all())
