"""Dropout's masks are as good as independent coins, whatever two places one compares."""

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax.nn.dropout import identity, make_dropout

SHAPE = (16, 64, 64)  # as if B, N, D
SIZE = int(np.prod(SHAPE))
CALLS = 3
ROOT = jax.random.key(3)
KEYS = {
    "split": jax.random.split(ROOT, 4),
    "fold_in": jax.vmap(lambda step: jax.random.fold_in(ROOT, step))(jnp.arange(4)),
    "seeds": jnp.stack([jax.random.key(seed) for seed in range(4)]),
    "rbg": jax.random.split(jax.random.key(3, impl="rbg"), 4),
}
CASES = [("split", 0.1), *((kind, 0.5) for kind in KEYS)]


def coins(keys, rate):
    """Return the masks `[keys * calls, SIZE]`, standardised: independent means uncorrelated."""

    def one(key):
        drop = make_dropout(rate, key)
        return jnp.stack([drop(jnp.ones(SHAPE)) for _ in range(CALLS)])

    values = np.asarray(factories.quick_jit(jax.vmap(one))(keys)).reshape(-1, SIZE)
    scale = np.float32(1 / (1 - rate))
    np.testing.assert_allclose(values[values != 0], scale, rtol=1e-6)
    return ((values != 0) - (1 - rate)) / np.sqrt(rate * (1 - rate))


@pytest.fixture(scope="module", params=CASES, ids=str)
def masks(request):
    kind, rate = request.param
    return coins(KEYS[kind], rate)


def correlation(a, b):
    """Return the normal deviates of the correlation of the last axis."""
    return np.abs((a * b).sum(axis=-1)).max() / np.sqrt(a.shape[-1])


def test_the_keep_rate_is_right(masks):
    assert np.abs(masks.sum(axis=1)).max() / np.sqrt(SIZE) < 4.5


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_examples_candidates_and_columns_are_treated_alike(masks, axis):
    means = masks.reshape(-1, *SHAPE).mean(axis=axis) * np.sqrt(SHAPE[axis - 1])
    assert means.std() == pytest.approx(1, abs=0.05)


def test_neighbours_in_every_direction_are_independent(masks):
    row, example = SHAPE[2], SHAPE[1] * SHAPE[2]
    for lag in (1, 2, 3, 4, 8, 16, row - 1, row, row + 1, 2 * row, example, 8 * example):
        assert correlation(masks[:, :-lag], masks[:, lag:]) < 5, lag


def test_runs_of_eight_have_their_binomial_share(masks):
    rate = 0.5 if abs(masks.min() + 1) < 1e-3 else 0.1
    kept = (masks > 0).reshape(-1, 8)
    seen = np.bincount(kept @ (1 << np.arange(8)), minlength=256)
    ones = np.array([n.bit_count() for n in range(256)])
    expected = len(kept) * (1 - rate) ** ones * rate ** (8 - ones)
    common = expected > 5
    chi2 = ((seen - expected) ** 2 / expected)[common].sum()
    assert abs(chi2 - common.sum()) < 5 * np.sqrt(2 * common.sum())


def test_calls_and_keys_are_independent(masks):
    pairs = masks @ masks.T / np.sqrt(SIZE)
    assert np.abs(pairs[np.triu_indices(len(masks), 1)]).max() < 5


def test_the_gradient_has_the_mask_of_the_value():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 40)), jnp.float32)

    @factories.quick_jit
    def both(x):
        return jax.vjp(make_dropout(0.5, ROOT), x)

    value, pull = both(x)
    np.testing.assert_allclose(pull(jnp.ones_like(x))[0] * x, value, rtol=1e-6)
    assert 0 < int((value == 0).sum()) < value.size


def test_vmap_map_scan_and_a_loop_agree():
    def one(key):
        drop = make_dropout(0.3, key)
        return drop(drop(jnp.ones((3, 7))))

    @factories.quick_jit
    def four_ways(keys):
        scanned = jax.lax.scan(lambda carry, key: (carry, one(key)), 0, keys)[1]
        looped = jnp.stack([one(keys[i]) for i in range(4)])
        return jax.vmap(one)(keys), jax.lax.map(one, keys), scanned, looped

    first, *others = four_ways(KEYS["split"])
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_rate_zero_is_the_identity_and_half_precision_stays():
    assert make_dropout(0.0, ROOT) is identity
    assert make_dropout(0.5, ROOT)(jnp.ones(8, jnp.bfloat16)).dtype == jnp.bfloat16
