"""The smallest reranker that learns, so that whole tables compile in seconds."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.nn.score_entry import ENTRIES
from dnr_jax.rerankers import Entry
from dnr_jax.settings import Settings, knob
from dnr_jax.types import Reranker


@dataclass(frozen=True, kw_only=True)
class LinearSettings(Settings):
    """Of all that rerankers share it has one knob."""

    score_entry: str = knob("concatenate", "none leaves the score out", one_of=ENTRIES)


def linear(task, settings):
    """Make `logit = v_item + w x`."""
    (items,) = (task.spec.sizes[name] for name in task.spec.item[:1])
    use = 0.0 if settings.score_entry == "none" else 1.0

    def init(key, request, scores):
        return {"item": 0.1 * jax.random.normal(key, (items,)), "slope": jnp.zeros(())}

    def encode(params, request, *, key=None, train=False):
        return jnp.take(params["item"], request.candidates[..., 0], axis=0), request.where

    def decode(params, memory, scores, *, key=None, train=False):
        values, where = memory
        return ops.mask_logits(values + use * params["slope"] * scores, where)

    return Reranker(init, encode, decode)


LINEAR = Entry("Linear", LinearSettings, linear)
