"""Scoring a split in batches changes nothing and drops nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax import evaluation


def score(params, request, scores):
    items = request.candidates[..., 0].astype(jnp.float32)
    # Sums of few bits, so that no order of operations rounds them.
    return jnp.round(64 * params * scores) + items / 1024 + request.user[:, :1]


@pytest.mark.parametrize("batch_size", [1, 7, 100, 101, 5000])
def test_every_request_comes_back_once_and_in_order(prepared, batch_size):
    split = jax.tree.map(lambda a: a[:101], prepared.splits["test"])
    logits = evaluation.score_split(score, 2.0, split.batch, batch_size=batch_size)
    expected = score(2.0, split.batch.request, split.batch.scores)
    assert logits.shape == (101, 20)
    assert logits.dtype == jnp.float32
    np.testing.assert_array_equal(logits, expected)


def test_half_precision_logits_are_refused(prepared):
    batch = prepared.splits["test"].batch
    with pytest.raises(TypeError, match="16 bits"):
        evaluation.score_split(
            lambda *inputs: score(*inputs).astype(jnp.bfloat16), 1.0, batch, batch_size=64
        )


def test_seeds_are_a_vmapped_axis(prepared):
    batch = prepared.splits["test"].batch
    params = jnp.asarray([0.0, 2.0])
    run = jax.vmap(lambda p: evaluation.score_split(score, p, batch, batch_size=64))
    single = evaluation.score_split(score, params[1], batch, batch_size=64)
    np.testing.assert_array_equal(run(params)[1], single)


def test_an_empty_split_and_a_bad_batch_size_are_errors(prepared):
    batch = prepared.splits["test"].batch
    with pytest.raises(ValueError, match="no requests"):
        evaluation.score_split(score, 1.0, jax.tree.map(lambda a: a[:0], batch), batch_size=4)
    with pytest.raises(ValueError, match="batch size 0"):
        evaluation.score_split(score, 1.0, batch, batch_size=0)
