"""How the first-stage score x enters a reranker: four entries, four places, any backbone.

Places, with H `[B, N, D]` the output of the candidate encoder:
- "late": `MLP(combine(H, x))`, a non-linear head; the meaning of x may depend on the candidate.
- "late_linear": `W . combine(H, x) + b`. For "add" and "concatenate" this is H's own logit plus ONE
  global slope times x: the form of the paper group's public code.
- "early": x joins the tokens before the candidate encoder, which then has to run once per set of
  scores; the head is linear and does not see x.
- "prior": `a MLP(H) + g(x)` with a global curve g and a single number a. If x and H are independent
  given z, the logit of p(z | x, H) is such a sum (Bayes), with g the logit of p(z | x) up to a
  constant. Here g, a and the backbone are learned together, by the same loss. Since a starts at 0
  and g at g(x) = x, a model whose logits come from the head starts with the first stage's order and
  departs from it as it learns (a gate that starts at 0 is from ReZero, Bachlechner et al., UAI
  2021). It is the same for every entry but "none".

In all places but "early" one pass of the encoder serves x and x'.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.nn.layers import Dense, product
from dnr_jax.types import Array

ENTRIES = ("none", "concatenate", "add", "weight")
PLACES = ("late", "late_linear", "early", "prior")
KNOTS = 11  # of the curve of place "prior": 0, 0.1, ..., 1


class ScoreUse(NamedTuple):
    """Which entry, at which place.

    With entry "none" no place reads scores; `place` then still chooses between the non-linear
    ("late", "prior") and the linear head, so that rows with and without scores differ only in x.

    Attributes:
      entry: one of `ENTRIES`.
      place: one of `PLACES`.
    """

    entry: str
    place: str

    @property
    def early(self) -> bool:
        """True if the candidate encoder reads scores."""
        return self.place == "early" and self.entry != "none"

    @property
    def late(self) -> bool:
        """True if the head reads scores."""
        return self.place != "early" and self.entry != "none"

    @property
    def prior(self) -> bool:
        """True if the logits start as the scores; see `Prior`."""
        return self.place == "prior" and self.entry != "none"


def combine(entry: str, hidden: Array, scores: Array) -> Array:
    """Join H and x: `H + x 1` (add), `H * x` (weight), `H` (none).

    Args:
      entry: "add", "weight" or "none"; for "concatenate" see `ConcatenatedDense`.
      hidden: `float32 [..., N, D]`.
      scores: `float32 [..., N]`.

    Returns:
      `float32 [..., N, D]`.
    """
    x = scores[..., None]
    if entry == "add":
        return hidden + x
    return hidden * x if entry == "weight" else hidden


class ConcatenatedDense(nn.Module):
    """`W [h, x] + b`: parameters and values of `Dense` on H with x as one more column.

    It never writes `[h, x]`, a copy of H with rows of an odd length. After a layer norm, XLA for
    GPU (of jax 0.10.2) even fails to compile that copy.

    Attributes:
      features: outputs per candidate.
    """

    features: int

    @nn.compact
    def __call__(self, hidden: Array, scores: Array) -> Array:
        """Map `float32 [..., N, D]` and `float32 [..., N]` to `[..., N, features]`."""
        shape = (hidden.shape[-1] + 1, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, shape[1:])
        mapped = product(hidden, kernel[:-1]) + product(scores[..., None], kernel[-1:])
        return mapped + bias.reshape(*[1] * (mapped.ndim - 1), -1)


class Prior(nn.Module):
    """`a logits + g(x)`: g is linear between `KNOTS` learned values on [0, 1], constant outside.

    It starts with a = 0 and g(x) = x, the order of the first stage.
    """

    @nn.compact
    def __call__(self, logits: Array, scores: Array) -> Array:
        """Map logits and scores of one shape to `float32` of that shape."""
        gate = self.param("gate", nn.initializers.zeros, ())
        values = self.param("values", lambda key: jnp.linspace(0.0, 1.0, KNOTS))
        steps = jnp.clip(scores.astype(jnp.float32), 0.0, 1.0)[..., None] * (KNOTS - 1)
        hats = jnp.maximum(1.0 - jnp.abs(steps - jnp.arange(KNOTS)), 0.0)
        return gate * logits + hats @ values


class EarlyEntry(nn.Module):
    """Put x into the tokens; the identity unless `use.early`.

    "concatenate": `W [h, x] + b`. "add": `h + x w` with a learned w (`x 1` would be removed by the
    next LayerNorm, which subtracts the mean). "weight": `h * x`.

    Attributes:
      use: entry and place.
    """

    use: ScoreUse

    @nn.compact
    def __call__(self, tokens: Array, scores: Array) -> Array:
        """Map `tokens [B, N, D]` and `scores [B, N]` to `[B, N, D]`."""
        if not self.use.early:
            return tokens
        width, dtype = tokens.shape[-1], tokens.dtype
        if self.use.entry == "add":
            return tokens + Dense(width, use_bias=False)(scores[..., None]).astype(dtype)
        if self.use.entry == "concatenate":
            # One product: equal candidates stay bit-identical, which MiDNN relies on.
            joined = jnp.concatenate([tokens, scores[..., None]], axis=-1)
            return Dense(width)(joined).astype(dtype)
        return combine(self.use.entry, tokens, scores).astype(dtype)


class ScoredHead(nn.Module):
    """Turn H, and x where `use.late`, into logits: linear for "late_linear" and "early".

    It computes in float32 whatever the dtype of H, so small differences of x and logits survive.

    Attributes:
      use: entry and place.
      width: hidden width of the non-linear head.
    """

    use: ScoreUse
    width: int

    @nn.compact
    def __call__(self, hidden: Array, scores: Array) -> Array:
        """Map `hidden [..., N, D]` and `scores [..., N]` to `float32 [..., N]`."""
        hidden = hidden.astype(jnp.float32)
        if self.use.place in ("late_linear", "early"):
            return self._first(1, "output", hidden, scores)[..., 0]
        hidden = nn.relu(self._first(self.width, "hidden", hidden, scores))
        logits = Dense(1, name="output")(hidden)[..., 0]
        return Prior(name="prior")(logits, scores) if self.use.prior else logits

    def _first(self, features: int, name: str, hidden: Array, scores: Array) -> Array:
        """Apply the layer that sees x, if any does."""
        joins = self.use.late and not self.use.prior
        if joins and self.use.entry == "concatenate":
            return ConcatenatedDense(features, name=name)(hidden, scores)
        joined = combine(self.use.entry, hidden, scores) if joins else hidden
        return Dense(features, name=name)(joined)


class ProductHead(nn.Module):
    """Turn a state q and candidates e into logits `q . e`, with x where `use` says so.

    For models whose score is an inner product. Without scores it has no parameters. "early" puts x
    into e before the product; "prior" is `a q . e + g(x)`; another late place adds
    `ScoredHead(q * e, x)` to the product.

    Attributes:
      use: entry and place.
      width: hidden width of the non-linear head.
    """

    use: ScoreUse
    width: int

    @nn.compact
    def __call__(self, state: Array, items: Array, scores: Array) -> Array:
        """Map `state [B, D]`, `items [B, N, D]` and `scores [B, N]` to `float32 [B, N]`."""
        state, items = state.astype(jnp.float32), items.astype(jnp.float32)  # see `ScoredHead`
        matched = state[:, None] * EarlyEntry(self.use)(items, scores)
        logits = matched.sum(axis=-1)
        if self.use.prior:
            return Prior(name="prior")(logits, scores)
        if self.use.late:
            return logits + ScoredHead(self.use, self.width)(matched, scores)
        return logits
