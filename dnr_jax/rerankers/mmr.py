"""MMR: trade the retriever's relevance against novelty within the shown list, without learning.

Carbonell and Goldstein 1998 (doi 10.1145/290941.291025): the next item shown is the i that
maximises `lambda rel_i - (1 - lambda) max_{j shown} cos(v_i, v_j)`. Here rel is the retriever's
score, scaled to [0, 1] per request so that both terms share a range, and v are the item vectors of
the data set.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.nn import slates
from dnr_jax.nn.item_tables import vectors_of
from dnr_jax.rerankers.trivial import fixed
from dnr_jax.settings import Settings, knob
from dnr_jax.types import Array, Memory, Params, Request, Reranker, Task


@dataclass(frozen=True, kw_only=True)
class MMRSettings(Settings):
    """Knobs of MMR."""

    relevance: float = knob(
        0.7, "lambda, of relevance against novelty; 1 keeps the order", at_least=0, at_most=1
    )


def mmr(task: Task, settings: MMRSettings) -> Reranker:
    """Build MMR; its logits are the retriever's scores, its order is the diversified one.

    The K places of the displayed list are filled one by one; the rest keeps the retriever's order.
    An item with a zero vector has similarity 0 to all others.

    Raises:
      ValueError: the task does not have a vector for every item id.
    """
    table = jnp.asarray(vectors_of(task))
    norms = jnp.linalg.norm(table, axis=-1, keepdims=True)
    directions = table / jnp.where(norms > 0, norms, 1.0)

    def encode(request: Request) -> Array:
        return jnp.take(directions, request.candidates[..., 0], axis=0)

    def arrange(params: Params, memory: Memory, scores: Array) -> Array:
        vectors, where = memory
        size = min(task.slate_size, where.shape[-1])
        chosen = jax.vmap(lambda *row: greedy(*row, relevance=settings.relevance, size=size))(
            ops.min_max(scores, where), vectors, where
        )
        return slates.score_list(chosen, scores, where)

    return fixed(encode, lambda _, scores: scores)._replace(arrange=arrange)


def greedy(rel: Array, vectors: Array, where: Array, *, relevance: float, size: int) -> Array:
    """Fill `size` places of one request, keeping each item's largest similarity to those shown.

    Args:
      rel: `float32 [N]` in [0, 1].
      vectors: `float32 [N, E]` of length 1 (or 0).
      where: `bool [N]`.
      relevance: lambda.
      size: K <= N.

    Returns:
      `int32 [K]`, -1 where the candidates ran out.
    """

    def place(state: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], Array]:
        left, nearest = state
        # Nothing is shown before the first place: the maximum over no items counts as 0.
        repeated = jnp.where(number > 0, nearest, 0.0)
        gain = jnp.where(left, relevance * rel - (1 - relevance) * repeated, -jnp.inf)
        best = jnp.argmax(gain)
        nearest = jnp.maximum(nearest, vectors @ vectors[best])
        chosen = jnp.where(left.any(), best, -1).astype(jnp.int32)
        return (left.at[best].set(False), nearest), chosen

    start = (where, jnp.full(rel.shape, -jnp.inf))
    return jax.lax.scan(place, start, jnp.arange(size))[1]
