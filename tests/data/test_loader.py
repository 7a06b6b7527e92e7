"""Batches: every request exactly once, the same order for the same (seed, epoch)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_store import chunk

from dnr_jax.data import loader


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 50), st.integers(0, 5), st.integers(0, 5), st.data())
def test_an_epoch_holds_every_request_once(count, seed, epoch, data):
    size = data.draw(st.integers(1, count))
    rows = loader.order(count, size, seed=seed, epoch=epoch)
    assert rows.shape == (-(-count // size), size)
    assert sorted(rows[rows != loader.PADDING_ROW]) == list(range(count))
    np.testing.assert_array_equal(rows, loader.order(count, size, seed=seed, epoch=epoch))


def test_epochs_and_seeds_shuffle_differently_and_evaluation_does_not():
    orders = [loader.order(40, 7, seed=s, epoch=e).tobytes() for s in (0, 1) for e in (0, 1)]
    assert len(set(orders)) == 4
    assert loader.order(5, 3).tolist() == [[0, 1, 2], [3, 4, -1]]


@pytest.mark.parametrize("size", [0, 11])
def test_a_batch_that_does_not_fit_is_refused(size):
    with pytest.raises(ValueError, match=f"batch size {size} does not fit a split of 10 requests"):
        loader.order(10, size)


def test_padding_rows_count_for_nothing():
    data = chunk(4).batch
    taken = loader.take(data, np.array([2, loader.PADDING_ROW]))
    np.testing.assert_array_equal(taken.scores[0], data.scores[2])
    np.testing.assert_array_equal(taken.request.history[0], data.request.history[2])
    assert not taken.request.where[1].any()
    assert not taken.request.history_where[1].any()
    assert not taken.exposed[1].any()
    assert taken.weights[1].sum() == taken.labels[1].sum() == taken.scores[1].sum() == 0
    assert (taken.slate[1] == -1).all()
