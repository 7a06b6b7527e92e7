"""Dropout's masks are as good as independent coins, and a request's depend on it alone."""

from functools import partial

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax.nn.dropout import grouped, identity, make_dropout

SHAPE = (16, 64, 64)  # as if B, N, D
SIZE = int(np.prod(SHAPE))
INDEX = jnp.arange(SHAPE[0], dtype=jnp.uint32)
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
        drop = make_dropout(rate, key, INDEX)
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
        return jax.vjp(lambda x: make_dropout(0.5, ROOT, INDEX[:5])(x), x)

    value, pull = both(x)
    np.testing.assert_allclose(pull(jnp.ones_like(x))[0] * x, value, rtol=1e-6)
    assert 0 < int((value == 0).sum()) < value.size


def test_vmap_map_scan_and_a_loop_agree():
    def one(key):
        drop = make_dropout(0.3, key, INDEX[:3])
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
    assert make_dropout(0.0, ROOT, INDEX) is identity
    half = make_dropout(0.5, ROOT, INDEX)(jnp.ones(SHAPE[:1], jnp.bfloat16))
    assert half.dtype == jnp.bfloat16


def masks_of(index, size=3):
    """Return the masks of two calls, the second by groups: `bool [2, B, size, 7]`."""
    drop, ones = make_dropout(0.4, ROOT, index), jnp.ones((len(index), size, 7))
    rows = grouped(drop, size)(ones.reshape(-1, 7))
    return np.stack([drop(ones) != 0, rows.reshape(ones.shape) != 0])


def test_a_request_has_its_mask_in_any_batch_part_and_order():
    index = jnp.array([7, 0, 4_000_000_000, 12, 3, 1], jnp.uint32)
    order = np.array([4, 2, 0, 5, 1, 3])
    whole = masks_of(index)
    np.testing.assert_array_equal(masks_of(index[order]), whole[:, order])
    np.testing.assert_array_equal(masks_of(index[2:4]), whole[:, 2:4])
    assert (masks_of(index + 1) != whole).any(axis=(0, 2, 3)).all()


def test_requests_far_apart_and_side_by_side_are_independent():
    size = 8192
    index = np.concatenate([np.arange(24), 2 ** np.arange(5, 32), 10**6 + np.arange(24)])
    drop = factories.quick_jit(lambda index, x: make_dropout(0.5, ROOT, index)(x))
    kept = np.asarray(drop(jnp.asarray(index, jnp.uint32), jnp.ones((len(index), size)))) - 1
    pairs = kept @ kept.T / np.sqrt(size)
    assert np.abs(pairs[np.triu_indices(len(index), 1)]).max() < 5
    # Nor is one the other, moved along: a counter that they shared would show here.
    spectra = np.fft.rfft(kept)
    for other in range(1, len(index)):
        moved = np.fft.irfft(spectra[:-other] * spectra[other:].conj()) / np.sqrt(size)
        assert np.abs(moved).max() < 7


def test_lists_or_samples_of_one_request_have_masks_of_their_own():
    masks = masks_of(INDEX, size=5)[1].reshape(-1, 7)
    kept = np.unique(masks.reshape(len(INDEX), 5, 7), axis=1)
    assert kept.shape[1] == 5
    assert 0.5 < masks.mean() < 0.7


@pytest.mark.parametrize("shape", [(5, 3), (12, 3), (), (3, 6, 2)])
def test_another_leading_axis_than_the_requests_is_refused(shape):
    drop = make_dropout(0.5, ROOT, INDEX[:6])
    with pytest.raises(ValueError, match=r"arrays \[B, \.\.\.\] of B = 6 requests, but x is"):
        drop(jnp.ones(shape))


@pytest.mark.parametrize("rows", [7, 12, 24, 6])
def test_another_number_of_rows_than_that_of_the_groups_is_refused(rows):
    drop = grouped(make_dropout(0.5, ROOT, INDEX[:6]), 3)
    with pytest.raises(ValueError, match="drop takes"):
        drop(jnp.ones((rows, 2)))


@pytest.mark.parametrize("way", [jax.vmap, lambda f: partial(jax.lax.map, f)], ids=["vmap", "map"])
def test_samples_or_steps_cannot_share_a_mask(way):
    @jax.jit
    def run(x):
        return way(make_dropout(0.5, ROOT, INDEX[:6]))(x)

    with pytest.raises(ValueError, match="drop was made outside"):
        run(jnp.ones((2, 6, 4)))
