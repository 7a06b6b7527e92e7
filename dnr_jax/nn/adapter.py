"""Flax modules -> `types.Reranker`; parameters and random keys are handled only here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, cast

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.dropout import Drop, identity, make_dropout
from dnr_jax.types import (
    Arrange,
    Array,
    Batch,
    Init,
    Loss,
    Memory,
    Params,
    Request,
    Reranker,
    Stage,
    apply,
)


class EncoderDecoder(Protocol):
    """The methods that `wrap` needs of a linen module (which uses `setup`, as it has two).

    `decode` may return anything where `where` is False: `wrap` masks the logits.
    """

    def encode(self, request: Request, *, drop: Drop) -> Memory: ...

    def decode(self, memory: Memory, scores: Array, where: Array, *, drop: Drop) -> Array: ...


class Encoded(NamedTuple):
    """The result of `encode` of a wrapped module.

    Attributes:
      inner: the module's own memory.
      where: `bool [B, N]`, `Request.where`.
      request_index: `uint32 [B]`, `Request.index`, which dropout in `decode` folds into its key.
    """

    inner: Memory
    where: Array
    request_index: Array


def require_key(key: Array | None, *, train: bool) -> None:
    """Raise `ValueError` if dropout is on and there is no key to draw from."""
    if train and key is None:
        raise ValueError("train=True needs a key for dropout: pass key=jax.random.key(...)")


def hide_padding(request: Request) -> Request:
    """Blank the features of masked candidates and events, so that no model can see them."""
    numbers = request.item_numbers
    if numbers is not None:
        numbers = jnp.where(request.where[..., None], numbers, 0)
    return replace(
        request,
        history=jnp.where(request.history_where[..., None], request.history, 0),
        candidates=jnp.where(request.where[..., None], request.candidates, 0),
        item_numbers=numbers,
    )


def wrap(
    module: nn.Module,
    *,
    dropout: float,
    run_all: Callable[[Any, Request, Array], Any] | None = None,
) -> Reranker:
    """Make a `Reranker` from a module with the two methods of `EncoderDecoder`.

    `init` is jitted without optimisation, as it runs once. Scores of masked candidates are read as
    0 and their logits are `ops.MASKED_LOGIT`; `decode` is differentiable in the scores.

    Args:
      module: an `EncoderDecoder`.
      dropout: rate in [0, 1) of the `drop` that the module receives in training.
      run_all: `run_all(module, request, scores)` runs every submodule, so that `init` makes all
        parameters; None = `encode` and `decode` run them all.
    """

    def encode(
        params: Params, request: Request, *, key: Array | None = None, train: bool = False
    ) -> Memory:
        drop = _drop(dropout, key, request.index, train=train)

        def run(scorer: EncoderDecoder) -> Memory:
            return scorer.encode(hide_padding(request), drop=drop)

        return Encoded(module.apply({"params": params}, method=run), request.where, request.index)

    def decode(
        params: Params,
        memory: Memory,
        scores: Array,
        *,
        key: Array | None = None,
        train: bool = False,
    ) -> Array:
        inner, where, index = memory
        drop = _drop(dropout, key, index, train=train)

        def run(scorer: EncoderDecoder) -> Array:
            return scorer.decode(inner, _real(scores, where), where, drop=drop)

        logits: Any = module.apply({"params": params}, method=run)
        return ops.mask_logits(logits, where)

    return Reranker(_init(module, run_all or _run_all), encode, decode)


def _init(module: nn.Module, run_all: Callable[[Any, Request, Array], Any]) -> Init:
    """Make `Reranker.init` of a module; `run_all` runs all of its submodules."""

    def whole(scorer: EncoderDecoder, request: Request, scores: Array) -> Any:
        return run_all(scorer, hide_padding(request), scores)

    def draw(key: Array, request: Request, scores: Array) -> Params:
        return module.init(key, request, scores, method=whole)["params"]

    quick_draw = jax.jit(draw, compiler_options={"xla_backend_optimization_level": 0})

    def init(key: Array, request: Request, scores: Array) -> Params:
        # Inside a caller's jit, compiler options are not allowed.
        return (draw if isinstance(key, jax.core.Tracer) else quick_draw)(key, request, scores)

    return init


def _run_all(scorer: EncoderDecoder, request: Request, scores: Array) -> Array:
    memory = scorer.encode(request, drop=identity)
    return scorer.decode(memory, scores, request.where, drop=identity)


def arranging(module: nn.Module, method: Callable[[Any, Memory, Array, Array], Array]) -> Arrange:
    """Make `Reranker.arrange` from `method(module, memory, scores, where) -> [B, N]`."""

    def arrange(params: Params, memory: Memory, scores: Array) -> Array:
        inner, where, _ = memory

        def run(scorer: Any) -> Array:
            return method(scorer, inner, _real(scores, where), where)

        order: Any = module.apply({"params": params}, method=run)
        return ops.mask_logits(order, where)

    return arrange


def module_loss(module: nn.Module, method: Callable[..., Array], *, dropout: float) -> Loss:
    """Make a `Loss` from `method(module, batch, *, drop, key) -> scalar`.

    The batch comes with padding hidden, as in `wrap`. `key` is a typed key for the loss's random
    draws; use `ops.per_request_keys(key, batch.request.index)`, so that no draw depends on the
    batch.
    """

    def loss(
        params: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> Array:
        require_key(key, train=train)
        drop_key, draw_key = jax.random.split(jax.random.key(0) if key is None else key)
        drop = _drop(dropout, drop_key, batch.request.index, train=train)
        request = hide_padding(batch.request)
        hidden = replace(batch, request=request, scores=_real(batch.scores, request.where))

        def run(scorer: Any) -> Array:
            return method(scorer, hidden, drop=drop, key=draw_key)

        return cast(Array, module.apply({"params": params}, method=run))

    return loss


class Lesson(NamedTuple):
    """A stage of training whose loss is a method of the module.

    Attributes:
      name, groups, share: see `types.Stage`.
      method: `method(module, batch, *, drop, key) -> scalar`; see `module_loss`.
    """

    name: str
    method: Callable[..., Array]
    groups: tuple[str, ...] = ()
    share: float = 1.0


def taught(
    module: nn.Module,
    *lessons: Lesson,
    dropout: float,
    run_all: Callable[[Any, Request, Array], Any] | None = None,
    arrange: Callable[[Any, Memory, Array, Array], Array] | None = None,
    log_odds: bool = True,
) -> Reranker:
    """Make a `Reranker` from a module that is trained by its own losses.

    Args:
      module: an `EncoderDecoder`.
      lessons: its stages, in order.
      dropout: see `wrap`.
      run_all: see `wrap`; None = `arrange` runs every submodule, or, without `arrange`, `encode`
        and `decode` do.
      arrange: `arrange(module, memory, scores, where) -> [B, N]`, the order of the list that the
        module builds; None = candidates are ordered by the logits.
      log_odds: see `Reranker`.
    """
    scorer = wrap(module, dropout=dropout, run_all=run_all or (arrange and _by_arranging(arrange)))
    return scorer._replace(
        arrange=arrange and arranging(module, arrange),
        stages=tuple(
            Stage(name, module_loss(module, method, dropout=dropout), groups, share)
            for name, method, groups, share in lessons
        ),
        log_odds=log_odds,
    )


def logit_loss(reranker: Reranker, loss: Callable[[Array, Array, Array], Array]) -> Loss:
    """Make a `Loss` from `loss(logits, labels, weights)`, with logits for the observed scores."""

    def own(
        params: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> Array:
        logits = apply(reranker, params, batch.request, batch.scores, key=key, train=train)
        return loss(logits, batch.labels, batch.weights)

    return own


def trained_by(
    reranker: Reranker, loss: Callable[[Array, Array, Array], Array], *, log_odds: bool
) -> Reranker:
    """Give `reranker` one stage of training, by `loss(logits, labels, weights)`."""
    own = Stage("train", logit_loss(reranker, loss))
    return reranker._replace(stages=(own,), log_odds=log_odds)


def _by_arranging(
    arrange: Callable[[Any, Memory, Array, Array], Array],
) -> Callable[[Any, Request, Array], Array]:
    """Make a `run_all` that encodes and arranges."""

    def run_all(scorer: Any, request: Request, scores: Array) -> Array:
        return arrange(scorer, scorer.encode(request, drop=identity), scores, request.where)

    return run_all


def _real(scores: Array, where: Array) -> Array:
    chex.assert_equal_shape([scores, where])
    return jnp.where(where, scores, 0.0).astype(jnp.float32)


def _drop(rate: float, key: Array | None, index: Array, *, train: bool) -> Drop:
    require_key(key, train=train)
    return make_dropout(rate, key, index) if train and key is not None else identity
