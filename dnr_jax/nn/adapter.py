"""Flax modules -> `types.Reranker`: the one place that knows how parameters and keys travel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.types import Array, Memory, Params, Request, Reranker


class Scorer(Protocol):
    """What `wrap` needs of a linen module (defined with `setup`, as it has two methods).

    `decode` may return anything where `where` is False: `wrap` masks the logits.
    """

    def encode(self, request: Request, *, train: bool) -> Memory: ...

    def decode(self, memory: Memory, scores: Array, where: Array, *, train: bool) -> Array: ...


def require_key(key: Array | None, *, train: bool) -> None:
    """Raise `ValueError` if dropout is on and there is no key to draw from."""
    if train and key is None:
        raise ValueError("train=True needs a key for dropout: pass key=jax.random.key(...)")


def hide_padding(request: Request) -> Request:
    """Set the ids of masked candidates and events to padding, so that no model can see them."""
    return replace(
        request,
        history=jnp.where(request.history_where[..., None], request.history, 0),
        candidates=jnp.where(request.where[..., None], request.candidates, 0),
    )


def wrap(module: nn.Module) -> Reranker:
    """Make a `Reranker` of a module with the two methods of `Scorer`.

    `init` is jitted (eagerly it takes seconds). Scores of masked candidates are read as 0 and their
    logits are `ops.MASKED_LOGIT`; `decode` is differentiable in the scores.
    """

    def whole(scorer: Scorer, request: Request, scores: Array) -> Array:
        memory = scorer.encode(hide_padding(request), train=False)
        return scorer.decode(memory, scores, request.where, train=False)

    @jax.jit
    def init(key: Array, request: Request, scores: Array) -> Params:
        return module.init(key, request, scores, method=whole)["params"]

    def encode(
        params: Params, request: Request, *, key: Array | None = None, train: bool = False
    ) -> Memory:
        require_key(key, train=train)

        def run(scorer: Scorer) -> Memory:
            return scorer.encode(hide_padding(request), train=train)

        return module.apply({"params": params}, rngs=_rngs(key, train), method=run), request.where

    def decode(
        params: Params,
        memory: Memory,
        scores: Array,
        *,
        key: Array | None = None,
        train: bool = False,
    ) -> Array:
        require_key(key, train=train)
        inner, where = memory
        chex.assert_equal_shape([scores, where])
        real = jnp.where(where, scores, 0.0).astype(jnp.float32)

        def run(scorer: Scorer) -> Array:
            return scorer.decode(inner, real, where, train=train)

        logits: Any = module.apply({"params": params}, rngs=_rngs(key, train), method=run)
        return ops.mask_logits(logits, where)

    return Reranker(init, encode, decode)


def _rngs(key: Array | None, train: bool) -> dict[str, Array]:
    return {"dropout": key} if train and key is not None else {}
