"""Scorers that learn nothing; they stand in every table, since a model must beat them to count."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.nn.adapter import require_key
from dnr_jax.types import Array, FeatureSpec, Memory, Params, Request, Reranker


def fixed(
    encode_request: Callable[[Request], Array], combine: Callable[[Array, Array], Array]
) -> Reranker:
    """Make a reranker without parameters: `combine(encode_request(request), scores)`, masked."""

    def init(key: Array, request: Request, scores: Array) -> Params:
        return {}

    def encode(
        params: Params, request: Request, *, key: Array | None = None, train: bool = False
    ) -> Memory:
        require_key(key, train=train)
        return encode_request(request), request.where

    def decode(
        params: Params,
        memory: Memory,
        scores: Array,
        *,
        key: Array | None = None,
        train: bool = False,
    ) -> Array:
        require_key(key, train=train)
        values, where = memory
        return ops.mask_logits(combine(values, scores), where)

    return Reranker(init, encode, decode)


def _nothing(request: Request) -> Array:
    return request.where


def retriever(spec: FeatureSpec) -> Reranker:
    """Keep the first stage's order: `logit = x`."""
    return fixed(_nothing, lambda _, scores: scores)


def reversed_retriever(spec: FeatureSpec) -> Reranker:
    """Reverse the first stage's order, `logit = -x`: it wins where the candidate set leaks."""
    return fixed(_nothing, lambda _, scores: -scores)


def random(spec: FeatureSpec, *, seed: int) -> Reranker:
    """Score uniformly in [0, 1) by a hash of seed, request and item: chance, but repeatable.

    Args:
      spec: not used.
      seed: >= 0; another seed is another order.
    """

    def draw(key: Array, items: Array) -> Array:
        return jax.vmap(lambda item: jax.random.uniform(jax.random.fold_in(key, item)))(items)

    def encode(request: Request) -> Array:
        root = jax.random.key(seed)
        return ops.per_request(draw, root, request.index, request.candidates[..., 0])

    return fixed(encode, lambda values, _: values)


def popularity(spec: FeatureSpec, *, item_popularity: Array) -> Reranker:
    """Score an item by its number of training interactions (an order, not a probability).

    Args:
      spec: `spec.item[0]` names the item column.
      item_popularity: `float32 [V]`, by encoded item id (`Prepared.item_popularity`).

    Raises:
      ValueError: the table does not have one number per item id.
    """
    table = jnp.asarray(item_popularity, jnp.float32)
    expected = (spec.sizes[spec.item[0]],)
    if table.shape != expected:
        raise ValueError(
            f"item_popularity has shape {table.shape}, the items of {spec.item[0]!r} need "
            f"{expected}: use the table prepared with this data set"
        )

    def encode(request: Request) -> Array:
        return jnp.take(table, request.candidates[..., 0], axis=0)

    return fixed(encode, lambda values, _: values)
