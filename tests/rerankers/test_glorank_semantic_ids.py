"""Semantic ids: unique, shared by similar items, and the same for the same seed."""

import numpy as np

from dnr_jax.rerankers.glorank.semantic_ids import k_means, nearest_mean, semantic_ids

DRAW = np.random.default_rng(0)
MIDDLES = np.eye(4, 6)
CLUSTER = DRAW.integers(0, 4, 60)
VECTORS = (MIDDLES[CLUSTER] + DRAW.normal(0, 0.02, (60, 6))).astype(np.float32)


def ids(vectors, **knobs):
    return semantic_ids(vectors, **({"codes": 4, "levels": 2, "seed": 0} | knobs))


def test_every_item_has_a_sequence_of_its_own():
    vectors = VECTORS.copy()
    vectors[10:40] = 0.0  # alike: numbered, in as many codes as thirty numbers take
    found = ids(vectors)
    assert found.dtype == np.int32
    assert found.min() >= 0
    assert found.max() < 4
    assert len(np.unique(found, axis=0)) == len(vectors)
    assert found.shape[1] == 2 + 3
    numbers = found[10:40, 2:] @ [16, 4, 1]
    np.testing.assert_array_equal(numbers, np.arange(30))


def test_items_all_unlike_need_no_numbers():
    assert ids(np.eye(3, dtype=np.float32), levels=1, codes=64).shape == (3, 1)


def test_the_length_of_a_vector_does_not_matter():
    lengths = DRAW.uniform(0.5, 3.0, (60, 1)).astype(np.float32)
    np.testing.assert_array_equal(ids(VECTORS * lengths)[:, 0], ids(VECTORS)[:, 0])


def test_every_level_describes_the_items_better():
    """The means of a sequence, added up, come nearer to the item with each level."""
    points = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    draw, rest, errors = np.random.default_rng(0), points, [np.square(points).sum()]
    for level in range(3):
        means = k_means(rest, 4, draw)
        nearest = nearest_mean(rest, means)
        np.testing.assert_array_equal(nearest, ids(VECTORS, levels=3)[:, level])
        rest = rest - means[nearest]
        errors.append(np.square(rest).sum())
    assert np.all(np.diff(errors) < 0)


def test_means_are_the_means_of_what_is_nearest_to_them():
    means = k_means(VECTORS.astype(np.float64), 4, np.random.default_rng(3))
    distances = np.square(VECTORS[:, None].astype(np.float64) - means).sum(axis=-1)
    nearest = nearest_mean(VECTORS, means)
    np.testing.assert_array_equal(nearest, distances.argmin(axis=1))
    for number in np.unique(nearest):
        np.testing.assert_allclose(
            means[number], VECTORS[nearest == number].mean(axis=0), atol=1e-6
        )


def test_a_seed_chooses_the_codes():
    np.testing.assert_array_equal(ids(VECTORS), ids(VECTORS))
    assert (ids(VECTORS)[:, 0] != ids(VECTORS, seed=1)[:, 0]).any()


def test_more_codes_than_items_are_no_obstacle():
    assert len(np.unique(ids(VECTORS[:3], codes=8), axis=0)) == 3
