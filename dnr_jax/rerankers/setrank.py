"""SetRank: a set transformer over the candidates, with or without induced attention.

Pang et al. 2020, arXiv 1912.05891. `MAB(Q, K) = LN(Y + FFN(Y))` with `Y = LN(Q + MHA(Q, K, K))` is
`nn.attention.TransformerLayer`. The tokens are the fused user and item states h (with x if the
entry is early); queries, keys and values are linear, where the authors' code puts a ReLU on them.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.nn.adapter import trained_by, wrap
from dnr_jax.nn.attention import Transformer, TransformerLayer
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.losses import attrank
from dnr_jax.nn.positions import ListPositions
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead, ScoreUse
from dnr_jax.nn.sizes import check_heads, check_positive
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.types import Array, FeatureSpec, Request, Reranker

# msab: every candidate attends to every other. imsab: through a few learned points.
ATTENTIONS = ("msab", "imsab")
# The places of `nn.positions` that keep the model a function of a set (with scores).
POSITIONS = ("none", "rank")


class InducedTransformer(nn.Module):
    """A stack of induced blocks: `IMSAB(X) = MAB(X, MAB(I, X))`, each with its own points I.

    Attributes:
      layers: number of blocks, >= 1.
      heads, feed_forward: see `nn.attention.TransformerLayer`.
      inducing: m, number of points.
    """

    layers: int
    heads: int
    feed_forward: int
    inducing: int

    @nn.compact
    def __call__(self, x: Array, where: Array, *, drop: Drop) -> Array:
        """Encode `x` `float32 [B, N, D]` under `where` `bool [B, N]`."""
        shape = (self.inducing, x.shape[-1])
        # All points are real: the second block needs no mask.
        every = jnp.ones((x.shape[0], self.inducing), bool)
        for number in range(self.layers):
            points = self.param(f"points_{number}", nn.initializers.normal(0.1), shape)
            gather, spread = (
                TransformerLayer(self.heads, self.feed_forward, name=f"{part}_{number}")
                for part in ("gather", "spread")
            )
            queries = jnp.broadcast_to(points[None], (x.shape[0], *shape))
            summary = gather(queries, x, where, causal=False, drop=drop)
            x = spread(x, summary, every, causal=False, drop=drop)
        return x


class SetRank(nn.Module):
    """The module behind `setrank`; see there for the attributes.

    The candidate encoder stands in `encode` unless its input depends on the scores (early entry, or
    positions by rank); then it stands in `decode` and runs once per set of scores.
    """

    spec: FeatureSpec
    width: int
    layers: int
    heads: int
    feed_forward: int
    history_layers: int
    attention: str
    inducing: int
    positions: str
    scores: ScoreUse

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        sizes = (self.layers, self.heads, self.feed_forward)
        self.request_encoder = RequestEncoder(
            self.spec, self.width, self.history_layers, self.heads, self.feed_forward
        )
        self.fusion = Fusion(self.width)
        self.early_entry = EarlyEntry(self.scores)
        self.list_positions = ListPositions(self.positions)
        self.list_encoder = (
            Transformer(*sizes, causal=False)
            if self.attention == "msab"
            else InducedTransformer(*sizes, self.inducing)
        )
        self.head = ScoredHead(self.scores, self.width)

    @property
    def _encoder_reads_scores(self) -> bool:
        return self.scores.early or self.positions == "rank"

    def encode(self, request: Request, *, drop: Drop) -> Array:
        """Return H `[B, N, D]`, or the tokens h where the candidate encoder needs scores."""
        user, items = self.request_encoder(request, drop=drop)
        tokens = self.fusion(user, items, drop=drop)
        if self._encoder_reads_scores:
            return tokens
        return self.list_encoder(tokens, request.where, drop=drop)

    def decode(self, memory: Array, scores: Array, where: Array, *, drop: Drop) -> Array:
        """Return the logits `[B, N]`."""
        if not self._encoder_reads_scores:
            return self.head(memory, scores)
        tokens = self.list_positions(self.early_entry(memory, scores), scores, where)
        return self.head(self.list_encoder(tokens, where, drop=drop), scores)


def setrank(
    spec: FeatureSpec,
    *,
    width: int,
    layers: int,
    heads: int,
    feed_forward: int,
    dropout: float,
    history_layers: int,
    attention: str,
    inducing: int,
    positions: str,
    score_entry: str,
    score_place: str,
) -> Reranker:
    """Build SetRank (Pang et al. 2020, arXiv 1912.05891), trained by AttRank as in the paper.

    Args:
      spec: column names and vocabulary sizes.
      width: D, a multiple of `heads`.
      layers: blocks over the candidates, >= 1.
      heads: attention heads, here and in the history encoder.
      feed_forward: hidden width of each block's FFN.
      dropout: rate in [0, 1).
      history_layers: transformer blocks over the history, >= 1.
      attention: "msab" (all pairs of candidates) or "imsab" (through learned points).
      inducing: m, number of points of "imsab", >= 1; "msab" does not read it.
      positions: "none", or "rank" for the paper's variant with the initial ranking: a learned
        embedding of the place in the order of the scores, so that the model depends on them even
        with `score_entry="none"`.
      score_entry: "none", "concatenate", "add" or "weight"; see `nn.score_entry`.
      score_place: "late" (non-linear head), "late_linear" or "early".

    Raises:
      ValueError: a size, rate or name is outside its range.
    """
    check_heads(width, heads)
    check_positive(
        layers=layers, history_layers=history_layers, feed_forward=feed_forward, inducing=inducing
    )
    if attention not in ATTENTIONS:
        raise ValueError(f"attention {attention!r} is unknown: choose one of {ATTENTIONS}")
    if positions not in POSITIONS:
        raise ValueError(
            f"positions {positions!r} are not for SetRank, whose candidates are a set: choose one "
            f"of {POSITIONS}"
        )
    sizes = (width, layers, heads, feed_forward, history_layers)
    use = ScoreUse(score_entry, score_place)
    module = SetRank(spec, *sizes, attention, inducing, positions, use)
    return trained_by(wrap(module, dropout=dropout), attrank)
