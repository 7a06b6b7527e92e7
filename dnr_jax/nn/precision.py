"""bfloat16 as a policy for any reranker: float32 parameters, scores, softmaxes, logits and losses.

Only here are values rounded: parameters before they are used, and outputs of embeddings and layer
norms. Everything between follows by type promotion. These are not rounded:

- embeddings (parameters named `table`). A step reads few of their rows, and its gradient sums over
  many entries. Rows are rounded after the gather, so table and gradient are float32.
- layer norms, softmaxes and losses inside.
- heads. A score x enters a late head in float32, and a layer with one output computes in float32.
  With the 8 bits of bfloat16, two in three lists of 50 candidates would have tied logits.

Early entry rounds the tokens that contain x: a difference of x below 1/256 of a token's entry may
be lost there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.nn.embeddings import FeatureEmbedding
from dnr_jax.nn.layers import LayerNorm
from dnr_jax.types import Params, Reranker

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def compute_in(reranker: Reranker, dtype: str) -> Reranker:
    """Make `reranker` compute in `dtype`, a key of `DTYPES`; its parameters stay float32.

    Gradients with respect to parameters and scores are float32, and so are logits and losses.

    Raises:
      ValueError: the name is not in `DTYPES`.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is unknown: choose one of {sorted(DTYPES)}")
    if dtype == "float32":
        return reranker
    stages = tuple(
        stage if stage.loss is None else stage._replace(loss=_rounded(stage.loss, dtype))
        for stage in reranker.stages
    )
    return reranker._replace(
        encode=_rounded(reranker.encode, dtype),
        decode=_rounded(reranker.decode, dtype),
        arrange=reranker.arrange and _rounded(reranker.arrange, dtype),
        stages=stages,
    )


def round_parameters(params: Params, dtype: Any) -> Params:
    """Round all float parameters to `dtype` except those of embedding tables and norms."""
    if not isinstance(params, Mapping):
        return _cast(params, dtype)
    if "scale" in params:  # a norm
        return params
    return {
        name: part if name == "table" else round_parameters(part, dtype)
        for name, part in params.items()
    }


def _rounded(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Make `function(params, ...)` compute in the dtype called `name`."""
    dtype = DTYPES[name]

    def run(params: Params, *arguments: Any, **keywords: Any) -> Any:
        with nn.intercept_methods(lambda *call: _run_module(dtype, *call)):
            return function(round_parameters(params, dtype), *arguments, **keywords)

    return run


def _run_module(
    dtype: Any,
    call: Callable[..., Any],
    inputs: tuple[Any, ...],
    keywords: dict[str, Any],
    context: Any,
) -> Any:
    """Run a method of a flax module; the last four are those of `nn.intercept_methods`."""
    module, own = context.module, context.method_name == "__call__"
    norm = own and isinstance(module, LayerNorm)
    if norm or (own and isinstance(module, nn.Dense) and module.features == 1):
        inputs = _cast(inputs, jnp.float32)
    result = call(*inputs, **keywords)
    return (
        _cast(result, dtype) if norm or (own and isinstance(module, FeatureEmbedding)) else result
    )


def _cast(tree: Any, dtype: Any) -> Any:
    def one(leaf: Any) -> Any:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(one, tree)
