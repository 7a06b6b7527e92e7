"""Small array operations that all modules share. Masks are called `where`; True means real."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dnr_jax.types import Array

# Finite on purpose: -inf turns 0 * inf into NaN in gradients of masked sums.
MASKED_LOGIT = -1e9


def mask_logits(logits: Array, where: Array) -> Array:
    """Return `logits` as float32 with `MASKED_LOGIT` where `where` is False."""
    return jnp.where(where, logits.astype(jnp.float32), MASKED_LOGIT)


def masked_log_softmax(logits: Array, where: Array, axis: int = -1) -> Array:
    """Log-softmax over real entries; 0 where `where` is False and in all-masked rows."""
    log_probabilities = jax.nn.log_softmax(mask_logits(logits, where), axis=axis)
    return jnp.where(where, log_probabilities, 0.0)


def weighted_sum(values: Array, weights: Array) -> tuple[Array, Array]:
    """Return `(sum(values * weights), sum(weights))`; entries of weight 0 may be NaN or inf.

    Add the sums of shards and batches first and divide last: the mean is then exact.
    """
    weights = weights.astype(jnp.float32)
    return jnp.sum(jnp.where(weights > 0, values, 0.0) * weights), jnp.sum(weights)


def weighted_mean(values: Array, weights: Array) -> Array:
    """Mean of `values` under `weights` (same shape, >= 0); 0 where all weights are 0."""
    total, count = weighted_sum(values, weights)
    return total / jnp.where(count > 0, count, 1.0)


def min_max(values: Array, where: Array) -> Array:
    """Scale the real entries of each row to [0, 1]; a constant row becomes 0.5, padding 0.

    Args:
      values: `float32 [..., N]`.
      where: `bool [..., N]`.
    """
    low = jnp.min(values, axis=-1, keepdims=True, where=where, initial=jnp.inf)
    high = jnp.max(values, axis=-1, keepdims=True, where=where, initial=-jnp.inf)
    spread = high - low
    flat = ~(spread > 0)
    scaled = (values - jnp.where(flat, 0.0, low)) / jnp.where(flat, 1.0, spread)
    return jnp.where(where, jnp.where(flat, 0.5, scaled), 0.0)


def ranks(values: Array, where: Array) -> Array:
    """Rank the real entries of each row: int32, 1 = highest, ties by position, padding 0."""
    order = jnp.argsort(jnp.where(where, -values, jnp.inf), axis=-1, stable=True)
    return jnp.where(where, jnp.argsort(order, axis=-1) + 1, 0).astype(jnp.int32)


def per_request_keys(key: Array, index: Array) -> Array:
    """Give each request its own key: `fold_in(key, index)` for `index` `uint32 [B]`."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def per_request(draw: Callable[..., Array], key: Array, index: Array, *inputs: Array) -> Array:
    """Vmap `draw(request_key, *row)` over requests, so that no draw depends on its batch.

    Args:
      draw: a function of one request's key and its rows of `inputs`.
      key: the step's key.
      index: `uint32 [B]`, the requests' own numbers.
      *inputs: arrays with leading axis B.
    """
    return jax.vmap(draw)(per_request_keys(key, index), *inputs)
