"""Scorers that learn nothing; they are in every table, since a model must beat them to count."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.nn.adapter import require_key
from dnr_jax.nn.item_tables import popularity_of
from dnr_jax.settings import Settings
from dnr_jax.types import Array, Memory, Params, Request, Reranker, Task


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


def retriever(task: Task, settings: Settings) -> Reranker:
    """Keep the first stage's order: `logit = x`."""
    return fixed(_nothing, lambda _, scores: scores)


def reversed_retriever(task: Task, settings: Settings) -> Reranker:
    """Reverse the first stage's order, `logit = -x`; it wins if the candidate set leaks labels."""
    return fixed(_nothing, lambda _, scores: -scores)


def random(task: Task, settings: Settings) -> Reranker:
    """Score uniformly in [0, 1) by a hash of seed, request and item: random but repeatable.

    Another `task.seed` gives another order.
    """

    def draw(key: Array, items: Array) -> Array:
        return jax.vmap(lambda item: jax.random.uniform(jax.random.fold_in(key, item)))(items)

    def encode(request: Request) -> Array:
        root = jax.random.key(task.seed)
        return ops.per_request(draw, root, request.index, request.candidates[..., 0])

    return fixed(encode, lambda values, _: values)


def popularity(task: Task, settings: Settings) -> Reranker:
    """Score an item by its number of training interactions (an order, not a probability).

    Raises:
      ValueError: the task does not have a popularity for every item id.
    """
    table = jnp.asarray(popularity_of(task))

    def encode(request: Request) -> Array:
        return jnp.take(table, request.candidates[..., 0], axis=0)

    return fixed(encode, lambda values, _: values)
