"""The validation value of each epoch: N@K of a model, or a stage's own loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax import ops
from dnr_jax.data import loader
from dnr_jax.evaluation import mean_ndcg, ndcg_sums, score_split
from dnr_jax.experiment.assembly import Job
from dnr_jax.training import sharding
from dnr_jax.training.phases import Validate
from dnr_jax.training.sharding import Apply, DeviceLayout
from dnr_jax.types import Array, Batch, Loss, Params, Stage

# For one batch: the weighted sum of the values, and the sum of the weights.
Judge = Callable[[Params, Batch], tuple[Array, Array]]


def ndcg(job: Job) -> Validate:
    """Make the map from stacked reranker parameters to N@K on the validation split, `[S]`."""
    batch, score, k = job.prepared.splits["valid"].batch, job.parts.score, job.plan.eval.k
    if job.row.train.stream:
        return _streamed(partial(_ndcg_of_batch, score, k), job)
    valid = sharding.replicate(job.parts.layout, plain(batch))
    return partial(_ndcg, score, job.scored_at_once, k, batch=valid)


def compile_ndcg(job: Job, params: Params) -> None:
    """Compile the unstreamed program of `ndcg`, for stacked parameters of these shapes."""
    batch = job.prepared.splits["valid"].batch
    score, k = job.parts.score, job.plan.eval.k
    _ndcg.lower(score, job.scored_at_once, k, params, batch=batch).compile()  # as it is called


def minus_loss(job: Job, stage: Stage) -> Validate:
    """Make the map from stacked parameters to minus the stage's loss on the validation split."""
    batch, loss, layout = job.prepared.splits["valid"].batch, stage.loss, job.parts.layout
    assert loss is not None
    if job.row.train.stream:
        return _streamed(partial(_minus_loss_of_batch, loss), job)
    valid = sharding.replicate(layout, plain(batch))
    return partial(_minus_loss, loss, layout, rows=_rows(job), batch=valid)


def plain(batch: Batch) -> Batch:
    """Read memory-mapped arrays into memory: this data set fits the device."""
    read: Batch = jax.tree.map(np.ascontiguousarray, batch)
    return read


@partial(jax.jit, static_argnums=(0, 1, 2))
def _ndcg(score: Apply, batch_size: int, k: int, params: Params, batch: Batch) -> Array:
    judged = batch.weights > 0

    def one(seed: Params) -> Array:
        logits = score_split(score, seed, batch, batch_size=batch_size)
        return mean_ndcg(logits, batch.labels, judged, k)

    values: Array = jax.lax.map(one, params)
    return values


@partial(jax.jit, static_argnums=(0, 1))
def _minus_loss(
    loss: Loss, layout: DeviceLayout, params: Params, rows: Array, batch: Batch
) -> Array:
    sizes = (rows != loader.PADDING_ROW).sum(axis=1)

    def one(seed: Params) -> Array:
        def judge(taken: Array) -> Array:
            return loss(seed, sharding.split_batch(layout, loader.take(batch, taken)))

        return -ops.weighted_mean(jax.lax.map(judge, rows), sizes)

    values: Array = jax.lax.map(one, params)
    return values


def _streamed(judge: Judge, job: Job) -> Validate:
    """Make the mean of `judge` over a split that is streamed from the host, part by part."""
    parts = loader.parts(_rows(job), job.row.train.stream)
    batch = job.prepared.splits["valid"].batch
    read = partial(sharding.put_batches, job.parts.layout, batch)

    def validate(params: Params) -> Array:
        sums = loader.stream(partial(_sums, judge, params), read, parts)
        total, count = (np.sum(column, axis=0) for column in zip(*sums, strict=True))
        return jnp.asarray(total / np.where(count > 0, count, 1.0), jnp.float32)

    return validate


@partial(jax.jit, static_argnums=0)
def _sums(judge: Judge, params: Params, part: Batch) -> tuple[Array, Array]:
    def one(seed: Params) -> tuple[Array, Array]:
        values, counts = jax.lax.map(partial(judge, seed), part)
        return values.sum(axis=0), counts.sum(axis=0)

    values, counts = jax.lax.map(one, params)
    return values, counts


def _ndcg_of_batch(score: Apply, k: int, params: Params, batch: Batch) -> tuple[Array, Array]:
    logits = score(params, batch.request, batch.scores)
    return ndcg_sums(logits, batch.labels, batch.weights > 0, k)


def _minus_loss_of_batch(loss: Loss, params: Params, batch: Batch) -> tuple[Array, Array]:
    size = batch.request.where.any(axis=1).sum()
    return -size * loss(params, batch), size


def _rows(job: Job) -> np.ndarray:
    count = len(job.prepared.splits["valid"].request_id)
    return loader.order(count, min(job.plan.eval.batch_size, count))
