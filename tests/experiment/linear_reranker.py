"""The smallest reranker that learns, so that whole tables compile in seconds."""

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.types import Reranker


def linear(spec, *, score_entry):
    """Make `logit = v_item + w x`; `score_entry` "none" leaves the score out."""
    (items,) = (spec.sizes[name] for name in spec.item[:1])
    use = 0.0 if score_entry == "none" else 1.0

    def init(key, request, scores):
        return {"item": 0.1 * jax.random.normal(key, (items,)), "slope": jnp.zeros(())}

    def encode(params, request, *, key=None, train=False):
        return jnp.take(params["item"], request.candidates[..., 0], axis=0), request.where

    def decode(params, memory, scores, *, key=None, train=False):
        values, where = memory
        return ops.mask_logits(values + use * params["slope"] * scores, where)

    return Reranker(init, encode, decode)
