"""SetRank: a set transformer over the candidates, with or without induced attention.

Pang et al. 2020, arXiv 1912.05891. `MAB(Q, K) = LN(Y + FFN(Y))` with `Y = LN(Q + MHA(Q, K, K))` is
`nn.attention.TransformerLayer`. The tokens are the fused user and item states h (with x if the
entry is early). Queries, keys and values are linear; the authors' code puts a ReLU on them.

`matching=True` puts the product of history and candidate into h (`nn.user_state`), which the
paper does not have.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.nn.adapter import trained_by, wrap
from dnr_jax.nn.attention import Transformer, TransformerLayer
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.losses import attrank
from dnr_jax.nn.positions import ListPositions
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.settings import knob
from dnr_jax.types import Array, FeatureSpec, Request, Reranker, Task

# msab: every candidate attends to every other. imsab: they attend through a few learned points.
ATTENTIONS = ("msab", "imsab")
# The kinds of `nn.positions` that keep the model a function of a set (with scores).
POSITIONS = ("none", "rank")


@dataclass(frozen=True, kw_only=True)
class SetRankSettings(Trunk):
    """Knobs of SetRank.

    `positions="rank"` is the paper's variant with the initial ranking. It adds a learned embedding
    of a candidate's rank by score, so the model depends on the scores even with
    `score_entry="none"`.
    """

    attention: str = knob(
        "imsab", "msab (all pairs) | imsab (through learned points)", one_of=ATTENTIONS
    )
    inducing: int = knob(20, "learned points of imsab", at_least=1)
    positions: str = knob("none", "none (a set) | rank (of the score)", one_of=POSITIONS)


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
    """The module behind `setrank`.

    The candidate encoder runs in `encode` unless its input depends on the scores (early entry, or
    positions by rank). Then it runs in `decode`, once per set of scores.
    """

    spec: FeatureSpec
    settings: SetRankSettings

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        settings = self.settings
        self.request_encoder = RequestEncoder(self.spec, settings)
        self.fusion = Fusion(settings.width)
        self.early_entry = EarlyEntry(settings.scores)
        self.list_positions = ListPositions(settings.positions)
        self.list_encoder = (
            Transformer(*settings.blocks, causal=False)
            if settings.attention == "msab"
            else InducedTransformer(*settings.blocks, settings.inducing)
        )
        self.head = ScoredHead(settings.scores, settings.width)

    @property
    def _encoder_reads_scores(self) -> bool:
        return self.settings.scores.early or self.settings.positions == "rank"

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


def setrank(task: Task, settings: SetRankSettings) -> Reranker:
    """Build SetRank (Pang et al. 2020, arXiv 1912.05891), trained with AttRank as in the paper."""
    scorer = wrap(SetRank(task.spec, settings), dropout=settings.dropout)
    return trained_by(scorer, attrank, log_odds=False)
