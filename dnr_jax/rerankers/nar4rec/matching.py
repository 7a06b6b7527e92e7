"""Matching generator: it assigns candidates to all places of a list at once.

The non-autoregressive generator of NAR4Rec (Ren et al. 2024, arXiv 2402.06871), its loss, and how a
list is read from the matrix M `[B, N, K]`. Each place has a softmax over the ITEMS,
`phat[:, i, k] = softmax_i M[:, i, k]`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.attention import Transformer, TransformerLayer
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.list_evaluator import slate_labels
from dnr_jax.nn.losses import bce
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.types import Array, Batch, FeatureSpec, Request


class PositionEncoder(nn.Module):
    """K learned vectors that attend to one another and then to the candidates, in each layer.

    Attributes:
      slate_size: K.
      layers, heads, feed_forward: see `nn.attention.Transformer`.
    """

    slate_size: int
    layers: int
    heads: int
    feed_forward: int

    @nn.compact
    def __call__(self, items: Array, where: Array, *, drop: Drop) -> Array:
        """Map the candidates' states `float32 [B, N, D]` to P `float32 [B, K, D]`."""
        shape = (self.slate_size, items.shape[-1])
        places = self.param("places", nn.initializers.normal(1.0), shape)
        x = jnp.broadcast_to(places[None], (items.shape[0], *shape))
        every = jnp.ones(x.shape[:2], bool)
        for number in range(self.layers):
            among, across = (
                TransformerLayer(self.heads, self.feed_forward, name=f"{part}_{number}")
                for part in ("among", "across")
            )
            x = among(x, x, every, causal=False, drop=drop)
            x = across(x, items, where, causal=False, drop=drop)
        return x


class MatchingGenerator(nn.Module):
    """Compute `M = X P^T / sqrt(D)` with X the encoded candidates and P the encoded places.

    Late entry adds `ScoredHead(X, x)_i` to row i, the same for all places; early entry puts x into
    the tokens of X. Without scores there is no head. As a scorer (`decode`) its logit of a
    candidate is the log of the mean over places of `exp M`: a candidate is good if it fits at some
    place. This scorer is ours.

    Attributes:
      spec: column names and vocabulary sizes.
      trunk: sizes, and how x enters; X and P have `layers` layers each.
      slate_size: K.
    """

    spec: FeatureSpec
    trunk: Trunk
    slate_size: int

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        trunk = self.trunk
        self.request_encoder = RequestEncoder(self.spec, trunk)
        self.fusion = Fusion(trunk.width)
        self.early_entry = EarlyEntry(trunk.scores)
        self.list_encoder = Transformer(*trunk.blocks, causal=False)
        self.position_encoder = PositionEncoder(self.slate_size, *trunk.blocks)
        self.head = ScoredHead(trunk.scores, trunk.width)

    def encode(self, request: Request, *, drop: Drop) -> Array | tuple[Array, Array]:
        """Return X and M without late scores, or the tokens h where the encoder needs scores."""
        tokens = self.fusion(*self.request_encoder(request, drop=drop), drop=drop)
        return tokens if self.trunk.scores.early else self._match(tokens, request.where, drop=drop)

    def _match(self, tokens: Array, where: Array, *, drop: Drop) -> tuple[Array, Array]:
        items = self.list_encoder(tokens, where, drop=drop)
        places = self.position_encoder(items, where, drop=drop)
        return items, items @ jnp.swapaxes(places, 1, 2) / self.trunk.width**0.5

    def match(
        self, memory: Array | tuple[Array, Array], scores: Array, where: Array, *, drop: Drop
    ) -> tuple[Array, Array]:
        """Return X `float32 [B, N, D]` and M `float32 [B, N, K]`; M of padding is meaningless."""
        if not isinstance(memory, tuple):
            return self._match(self.early_entry(memory, scores), where, drop=drop)
        items, matching = memory
        if self.trunk.scores.late:
            matching = matching + self.head(items, scores)[..., None]
        return items, matching

    def decode(
        self, memory: Array | tuple[Array, Array], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the logits `[B, N]`: see `mean_over_places`."""
        return mean_over_places(self.match(memory, scores, where, drop=drop)[1])


def mean_over_places(matching: Array) -> Array:
    """Compute `log mean_k exp M_ik`: `[B, N, K]` to `[B, N]`."""
    return jax.nn.logsumexp(matching, axis=-1) - jnp.log(float(matching.shape[-1]))


def place_margins(matching: Array, where: Array, lists: Array) -> tuple[Array, Array]:
    """Compute the log-odds of phat at the items of lists, `m_k = log p - log(1 - p)`.

    Computed as `M_ik - logsumexp over the others j of M_jk`, it is exact for p near 0 and near 1.

    Args:
      matching: M, `float32 [B, N, K]`.
      where: `bool [B, N]`.
      lists: `int32 [B, K]`.

    Returns:
      m `float32 [B, K]`, and `bool [B, K]`: whether there is an item and at least one other.
    """
    rows = jnp.swapaxes(matching, 1, 2)
    mine = lists[..., None] == jnp.arange(rows.shape[-1])[None, None]
    others = where[:, None] & ~mine
    rest = jax.nn.logsumexp(ops.mask_logits(rows, others), axis=-1)
    picked = jnp.take_along_axis(rows, jnp.maximum(lists, 0)[..., None], axis=-1)[..., 0]
    return picked - rest, others.any(axis=-1) & (lists >= 0)


def matching_loss(matching: Array, batch: Batch, *, threshold: float) -> Array:
    """Compute NAR4Rec's likelihood of good shown lists and unlikelihood of the others.

    It is `-log phat` at the shown items if the list's labels sum to `threshold` or more, else
    `-log(1 - phat)`, averaged over the shown and judged places. In terms of the log-odds m of phat
    these are `softplus(-m)` and `softplus(m)`, the binary cross-entropy of m.
    """
    labels, weights = slate_labels(batch)
    utility = jnp.where(weights > 0, labels, 0.0).sum(axis=-1, keepdims=True)
    margins, matched = place_margins(matching, batch.request.where, batch.slate)
    good = jnp.broadcast_to((utility >= threshold).astype(jnp.float32), margins.shape)
    return bce(margins, good, weights * matched)


def fill_places(gains: Array, costs: Array, where: Array) -> Array:
    """Fill place k with the best `gains[:, i, k] - max_{j chosen} costs[:, j, i]` that is left.

    Args:
      gains: `float32 [B, N, K]`.
      costs: `float32 [B, N, N]`, >= -1; the first place has none.
      where: `bool [B, N]`.

    Returns:
      `int32 [B, K]` without repeats; -1 = no candidate is left.
    """
    rows = jnp.arange(where.shape[0])

    def step(state: tuple[Array, Array], gain: Array) -> tuple[tuple[Array, Array], Array]:
        left, worst = state
        best = jnp.argmax(jnp.where(left, gain - worst, -jnp.inf), axis=-1)
        chosen = jnp.where(left.any(axis=-1), best, -1).astype(jnp.int32)
        worst = jnp.maximum(worst, costs[rows, best])
        return (left.at[rows, best].set(False), worst), chosen

    # At most all costs, and the same for all candidates at the first place.
    start = (where, jnp.full(where.shape, -1.0))
    return jnp.swapaxes(jax.lax.scan(step, start, jnp.moveaxis(gains, -1, 0))[1], 0, 1)
