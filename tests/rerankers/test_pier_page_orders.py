"""Page orders: hashes and distances against loops, and what is proposed."""

from itertools import permutations

import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax.rerankers.pier import page_orders as fpsm

RNG = np.random.default_rng(0)
ITEMS = RNG.normal(size=(2, 4, 5)).astype(np.float32)
PLACES = RNG.normal(size=(4, 5)).astype(np.float32)
FULL = np.ones((2, 1, 4), bool)


def signature(page, where=FULL):
    """s of pages `[2, K, D]`."""
    return np.asarray(
        fpsm.page_signatures(jnp.asarray(page)[:, None], jnp.asarray(where), jnp.asarray(PLACES))
    )


def distance(one, other, weight=1.0):
    weights = jnp.full((len(one), other.shape[1]), weight)
    return np.asarray(fpsm.page_distances(jnp.asarray(one), jnp.asarray(other), weights))


@pytest.mark.parametrize(("size", "count"), [(1, 1), (3, 6), (6, 720), (8, 720)])
def test_orders_are_all_those_of_the_first_six_places(size, count):
    orders = fpsm.page_orders(size)
    assert orders.shape == (count, size)
    assert len(np.unique(orders, axis=0)) == count
    np.testing.assert_array_equal(orders[0], np.arange(size))
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(size), (count, 1)))
    assert np.all(orders[:, 6:] == np.arange(6, size)[None] if size > 6 else True)


@pytest.mark.parametrize("length", [2, 3, 7, 23])
def test_a_history_is_cut_from_its_end(length):
    events = np.arange(1, length + 1)[None].repeat(2, axis=0)
    pages = np.asarray(fpsm.cut_pages(jnp.asarray(events), 3))
    assert pages.shape == (2, min(5, -(-length // 3)), 3)
    for p, page in enumerate(pages[0]):
        last = length - 3 * p
        np.testing.assert_array_equal(page, np.maximum(np.arange(last - 2, last + 1), 0))
    features = fpsm.cut_pages(jnp.asarray(events)[..., None] * jnp.ones((1, 1, 2)), 3)
    np.testing.assert_array_equal(features, pages[..., None].repeat(2, axis=-1))


def test_a_signature_is_the_signs_of_the_projected_mean():
    where = RNG.random((2, 1, 4)) < 0.7
    where[:, :, 0] = True
    expected = np.zeros((2, fpsm.BITS))
    for b in range(2):
        real = np.flatnonzero(where[b, 0])
        mean = np.mean([ITEMS[b, k] * PLACES[k] for k in real], axis=0)
        expected[b] = np.sign(mean @ fpsm.hash_matrix(5))
    np.testing.assert_array_equal(signature(ITEMS, where)[:, 0], expected)


def test_the_signatures_of_orders_are_those_of_the_ordered_pages():
    orders = fpsm.page_orders(4)
    found = fpsm.order_signatures(jnp.asarray(ITEMS), jnp.asarray(PLACES), orders)
    for m, order in enumerate(permutations(range(4))):
        np.testing.assert_array_equal(found[:, m], signature(ITEMS[:, list(order)])[:, 0])
    # An order is seen: the places differ.
    assert len(np.unique(np.asarray(found[0]), axis=0)) > 5


def test_without_places_no_order_is_seen():
    orders = fpsm.page_orders(4)
    found = fpsm.order_signatures(jnp.asarray(ITEMS), jnp.ones((4, 5)), orders)
    np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1], found.shape))


def test_equal_pages_have_distance_0_and_opposite_ones_twice_the_bits():
    same, opposite = signature(ITEMS), signature(-ITEMS)
    np.testing.assert_array_equal(distance(same, same), 0)
    np.testing.assert_array_equal(distance(same, opposite), 2 * fpsm.BITS)
    np.testing.assert_array_equal(distance(same, opposite, 3.0), 6 * fpsm.BITS)


def test_zero_vectors_have_signs_too():
    np.testing.assert_array_equal(signature(0 * ITEMS), 1)


def test_the_distance_is_the_weighed_sum_over_pages():
    one = RNG.choice([-1.0, 1.0], (2, 7, fpsm.BITS))
    met = RNG.choice([-1.0, 1.0], (2, 3, fpsm.BITS))
    weights = np.array([[6.0, 4.0, 0.0], [3.0, 0.0, 4.0]])
    gaps = np.abs(one[:, :, None] - met[:, None]).sum(axis=-1)
    expected = (gaps * weights[:, None]).sum(axis=-1)
    np.testing.assert_array_equal(
        fpsm.page_distances(*(jnp.asarray(a, jnp.float32) for a in (one, met, weights))), expected
    )


def test_the_nearest_start_with_the_identity_and_the_farthest_leave_it_out():
    orders = fpsm.page_orders(4)
    page = np.array([[7, 3, 9, 1], [5, 2, -1, -1], [8, -1, -1, -1]], np.int32)
    distances = RNG.permutation(3 * 24).reshape(3, 24).astype(np.float32)
    distances[:, 0] = 99.0
    near, far = fpsm.nearest_and_farthest(jnp.asarray(page), jnp.asarray(distances), orders, 5)
    for b, items in enumerate((4, 2, 1)):
        # Only the places that hold an item may be moved.
        free = [m for m in range(1, 24) if all(orders[m][k] == k for k in range(items, 4))]
        ranked = sorted(free, key=lambda m: distances[b, m])
        for found, expected in ((near, [0, *ranked]), (far, [*ranked[::-1], 0])):
            kept = expected[:5]
            np.testing.assert_array_equal(found.where[b], np.arange(5) < len(kept))
            np.testing.assert_array_equal(found.lists[b][: len(kept)], page[b][orders[kept]])
            assert np.all(np.asarray(found.lists[b][: len(kept)])[:, items:] == -1)


def test_equal_distances_keep_the_order_of_the_orders():
    orders = fpsm.page_orders(3)
    page = jnp.arange(3)[None]
    near, _ = fpsm.nearest_and_farthest(page, jnp.zeros((1, 6)), orders, 4)
    np.testing.assert_array_equal(near.lists[0], orders[:4])
