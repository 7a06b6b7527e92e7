"""Attention against plain numpy, masks, and the last-query shortcut against the full result."""

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from dnr_jax.nn.attention import Attention, Transformer
from dnr_jax.nn.dropout import identity

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(3, 5, 8)), jnp.float32)
KEYS = jnp.asarray(RNG.normal(size=(3, 6, 8)), jnp.float32)
WHERE = jnp.asarray([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]], bool)


def random_params(module, *inputs, **options):
    def init(key):
        return module.init(key, *inputs, **options)

    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(lambda s: jnp.asarray(RNG.normal(size=s.shape), s.dtype), shapes)


def slow_attention(params, queries, keys, where, heads, causal):
    """Write attention out head by head."""
    kernel, bias = np.asarray(params["kernel"]), np.asarray(params["bias"])[0, 0]
    width = queries.shape[-1]
    projected = [
        a @ kernel[:, i * width : (i + 1) * width] + bias[i * width : (i + 1) * width]
        for i, a in enumerate((queries, keys, keys))
    ]
    q, k, v = (a.reshape(*a.shape[:2], heads, -1) for a in projected)
    logits = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(width // heads)
    seen = np.broadcast_to(where[:, None, None, :], logits.shape)
    if causal:
        seen = seen & np.tril(np.ones(logits.shape[-2:], bool))
    weights = special.softmax(np.where(seen, logits, -1e30), axis=-1)
    mixed = np.einsum("bhqk,bkhd->bqhd", weights, v).reshape(queries.shape)
    output = params["output"]
    return mixed @ np.asarray(output["kernel"]) + np.asarray(output["bias"])


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_is_the_formula(causal):
    module = Attention(heads=2)
    where = WHERE.at[:, 0].set(True)  # so that every causal query sees a key
    params = random_params(module, X, X, where, causal=causal)
    fast = factories.quick_jit(lambda x: module.apply(params, x, x, where, causal=causal))(X)
    slow = slow_attention(params["params"], *map(np.asarray, (X, X, where)), 2, causal)
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-4)


def test_attention_to_another_set_is_the_formula():
    module = Attention(heads=4)
    where = jnp.asarray(RNG.random((3, 6)) < 0.6).at[:, 2].set(True)
    params = random_params(module, X, KEYS, where, causal=False)
    fast = factories.quick_jit(lambda: module.apply(params, X, KEYS, where, causal=False))()
    slow = slow_attention(params["params"], *map(np.asarray, (X, KEYS, where)), 4, False)
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-4)


def test_weights_sum_to_one_over_real_keys():
    module = Attention(heads=2)
    params = random_params(module, X, X, WHERE, causal=False)["params"]
    values = jnp.zeros_like(params["bias"]).at[..., 16:].set(1.0)  # v = 1 for every key
    params |= {
        "kernel": params["kernel"].at[:, 16:].set(0.0),
        "bias": params["bias"].at[..., 16:].set(0.0) + values,
        "output": {"kernel": jnp.eye(8), "bias": jnp.zeros(8)},
    }
    mixed = module.apply({"params": params}, X, X, WHERE, causal=False)
    np.testing.assert_allclose(mixed, 1.0, rtol=1e-6)


def make_transformer(layers, causal):
    module = Transformer(layers, heads=2, feed_forward=8, causal=causal)
    params = random_params(module, X, WHERE, drop=identity)

    @factories.quick_jit
    def run(x, where):
        full = module.apply(params, x, where, drop=identity)
        return full, module.apply(params, x, where, drop=identity, last_only=True)

    return run


@pytest.mark.parametrize(("layers", "causal"), [(1, True), (2, True), (2, False)])
def test_the_last_query_alone_equals_the_full_result_there(layers, causal):
    full, last = make_transformer(layers, causal)(X, WHERE)
    assert last.shape == (3, 1, 8)
    np.testing.assert_allclose(last, full[:, -1:], rtol=1e-5, atol=1e-5)


def test_masked_tokens_never_leak():
    run = make_transformer(2, True)
    garbage = jnp.where(WHERE[..., None], X, 1e3)
    for clean, dirty in zip(run(X, WHERE), run(garbage, WHERE), strict=True):
        real = WHERE[:, -clean.shape[1] :]
        np.testing.assert_array_equal(clean[real], dirty[real])


def test_an_all_masked_row_is_finite_with_its_gradients():
    module = Transformer(1, heads=2, feed_forward=8, causal=True)
    nothing = jnp.zeros_like(WHERE)
    params = random_params(module, X, nothing, drop=identity)

    def total(params):
        return module.apply(params, X, nothing, drop=identity).sum()

    for leaf in jax.tree.leaves(factories.quick_jit(jax.value_and_grad(total))(params)):
        assert bool(jnp.isfinite(leaf).all())
