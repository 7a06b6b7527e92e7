"""MMR against a brute-force search, and what each end of its trade-off must give."""

import factories
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax import types
from dnr_jax.rerankers import build

VECTORS = np.random.default_rng(0).normal(size=(factories.SIZES["item"], 5)).astype(np.float32)
VECTORS[0] = 0.0  # padding


def order(batch, *, relevance, vectors=VECTORS, size=3):
    task = factories.make_task(item_vectors=vectors, slate_size=size)
    model = build("mmr", task, relevance=relevance)
    run = factories.quick_jit(lambda request, scores: types.rank(model, {}, request, scores))
    return np.asarray(run(batch.request, batch.scores))


def shown(row, real, size):
    return np.argsort(-row, kind="stable")[: min(size, real.sum())]


def search(scores, vectors, real, *, relevance, size):
    """Follow the definition place by place with plain loops."""
    places = np.flatnonzero(real)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    x = scores[places]
    rel = (x - x.min()) / (x.max() - x.min()) if np.ptp(x) > 0 else np.full(len(x), 0.5)
    list_ = []
    for _ in range(min(size, len(places))):
        gains = {}
        for n, i in enumerate(places):
            if i in list_:
                continue
            nearest = max((vectors[i] @ vectors[j] for j in list_), default=0.0)
            gains[i] = relevance * rel[n] - (1 - relevance) * nearest
        list_.append(max(gains, key=gains.get))
    return list_


@pytest.mark.parametrize("relevance", [0.0, 0.3, 0.7, 1.0])
def test_it_is_the_greedy_search_of_the_paper(relevance):
    batch = factories.make_batch(seed=3, B=20, N=6)
    found = order(batch, relevance=relevance, size=4)
    rows = zip(found, batch.scores, batch.request.candidates, batch.request.where, strict=True)
    for row, scores, items, real in rows:
        real = np.asarray(real)
        vectors = VECTORS[np.asarray(items)[:, 0]]
        expected = search(np.asarray(scores), vectors, real, relevance=relevance, size=4)
        assert shown(row, real, 4).tolist() == expected


def test_relevance_alone_is_the_order_of_the_retriever():
    batch = factories.make_batch(B=20)
    for row, scores, real in zip(
        order(batch, relevance=1.0), batch.scores, batch.request.where, strict=True
    ):
        real = np.asarray(real)
        falling = np.argsort(np.where(real, -np.asarray(scores), np.inf), kind="stable")
        assert (
            np.argsort(-row, kind="stable")[: real.sum()].tolist() == falling[: real.sum()].tolist()
        )


def test_a_copy_of_the_first_item_waits():
    batch = factories.make_batch(B=1, N=8)
    vectors = VECTORS.copy()
    first, second = np.argsort(-np.asarray(batch.scores[0]))[:2]
    ids = np.asarray(batch.request.candidates[0, :, 0])
    vectors[ids[second]] = 2.0 * vectors[ids[first]]  # the same direction
    close = jnp.asarray(batch.scores).at[0, second].set(batch.scores[0, first] - 1e-3)
    batch = batch.replace(scores=close)
    assert shown(order(batch, relevance=0.5, vectors=vectors)[0], np.ones(8, bool), 2)[1] != second
    assert shown(order(batch, relevance=1.0, vectors=vectors)[0], np.ones(8, bool), 2)[1] == second


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"vectors": VECTORS[:-1]}, r"item_vectors has shape \(39, 5\).*need \(40, E\)"),
        ({"vectors": None}, "item_vectors is not given"),
        ({"relevance": 1.5}, "relevance is 1.5: it must be 0 or more and at most 1"),
    ],
)
def test_bad_knobs_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        order(factories.make_batch(), **({"relevance": 0.7} | knobs))
