"""MMR: trade the retriever's relevance against novelty within the shown list, without learning.

Carbonell and Goldstein 1998 (doi 10.1145/290941.291025): item i is shown next that maximises
`lambda rel_i - (1 - lambda) max_{j shown} cos(v_i, v_j)`. Here rel is the retriever's score, scaled
to [0, 1] per request so that both terms share a range, and v are the item vectors of the data set.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.nn import lists
from dnr_jax.nn.sizes import check_positive
from dnr_jax.rerankers.trivial import fixed
from dnr_jax.types import Array, FeatureSpec, Memory, Params, Request, Reranker


def mmr(spec: FeatureSpec, *, item_vectors: Array, relevance: float, slate_size: int) -> Reranker:
    """Build MMR; its logits are the retriever's scores, its order is the diversified one.

    Args:
      spec: `spec.item[0]` names the item column.
      item_vectors: `float32 [V, E]`, by encoded item id (`Prepared.item_vectors`); a zero vector
        is similar to nothing.
      relevance: lambda in [0, 1]; 1 keeps the retriever's order.
      slate_size: K, places that are filled one by one; the rest keeps the retriever's order.

    Raises:
      ValueError: the vectors do not fit the vocabulary, or a knob is outside its range.
    """
    table = jnp.asarray(item_vectors, jnp.float32)
    items = spec.sizes[spec.item[0]]
    if table.ndim != 2 or table.shape[0] != items:
        raise ValueError(
            f"item_vectors have shape {table.shape}, the items of {spec.item[0]!r} need "
            f"({items}, E): use the vectors prepared with this data set"
        )
    if not 0 <= relevance <= 1:
        raise ValueError(f"relevance {relevance} is outside [0, 1]")
    check_positive(slate_size=slate_size)
    norms = jnp.linalg.norm(table, axis=-1, keepdims=True)
    directions = table / jnp.where(norms > 0, norms, 1.0)

    def encode(request: Request) -> Array:
        return jnp.take(directions, request.candidates[..., 0], axis=0)

    def arrange(params: Params, memory: Memory, scores: Array) -> Array:
        vectors, where = memory
        size = min(slate_size, where.shape[-1])
        chosen = jax.vmap(lambda *row: greedy(*row, relevance=relevance, size=size))(
            ops.min_max(scores, where), vectors, where
        )
        return lists.score_list(chosen, scores, where)

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
        # Nothing is shown before the first place: the maximum over nothing counts as 0.
        repeated = jnp.where(number > 0, nearest, 0.0)
        gain = jnp.where(left, relevance * rel - (1 - relevance) * repeated, -jnp.inf)
        best = jnp.argmax(gain)
        nearest = jnp.maximum(nearest, vectors @ vectors[best])
        chosen = jnp.where(left.any(), best, -1).astype(jnp.int32)
        return (left.at[best].set(False), nearest), chosen

    start = (where, jnp.full(rel.shape, -jnp.inf))
    return jax.lax.scan(place, start, jnp.arange(size))[1]
