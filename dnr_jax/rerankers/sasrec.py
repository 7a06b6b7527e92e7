"""SASRec: self-attention over the history, candidates matched by inner product.

Kang and McAuley 2018, arXiv 1808.09781: `H = sqrt(D) E[history] + P`, causal attention blocks, q
the last position, `s_i = q . E[i]` with one item table. Here the blocks are post-norm, positions
count from the most recent event (more padding changes nothing), and the labels of the candidates
are the targets (binary cross-entropy) where the paper predicts each next item against one sampled
negative.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.embeddings import FeatureEmbedding
from dnr_jax.nn.score_entry import ProductHead, ScoreUse
from dnr_jax.nn.sizes import check_heads, check_positive
from dnr_jax.nn.user_state import HistoryEncoder
from dnr_jax.types import Array, FeatureSpec, Request, Reranker


class SASRec(nn.Module):
    """The module behind `sasrec`; see there for the attributes."""

    spec: FeatureSpec
    width: int
    history_layers: int
    heads: int
    feed_forward: int
    scores: ScoreUse

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        self.embedding = FeatureEmbedding(self.spec, self.width)
        self.history = HistoryEncoder(self.history_layers, self.heads, self.feed_forward)
        self.head = ProductHead(self.scores, self.width)

    def encode(self, request: Request, *, drop: Drop) -> tuple[Array, Array]:
        """Return q `[B, D]`, 0 for an empty history, and the candidates `[B, N, D]`."""
        parts = self.embedding(request)
        events = jnp.sqrt(self.width) * (parts.history_items + parts.history_events)
        return self.history(events, request.history_where, drop=drop), parts.items

    def decode(
        self, memory: tuple[Array, Array], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the logits `[B, N]`."""
        return self.head(*memory, scores)


def sasrec(
    spec: FeatureSpec,
    *,
    width: int,
    history_layers: int,
    heads: int,
    feed_forward: int,
    dropout: float,
    score_entry: str,
    score_place: str,
) -> Reranker:
    """Build SASRec (Kang and McAuley 2018, arXiv 1808.09781).

    Args:
      spec: column names and vocabulary sizes.
      width: D, a multiple of `heads`.
      history_layers: attention blocks over the history, >= 1.
      heads: attention heads.
      feed_forward: hidden width of each block's FFN.
      dropout: rate in [0, 1).
      score_entry: "none", "concatenate", "add" or "weight"; see `nn.score_entry.ProductHead`.
      score_place: "late" (non-linear head), "late_linear" or "early".

    Raises:
      ValueError: a size, rate or name is outside its range.
    """
    check_heads(width, heads)
    check_positive(history_layers=history_layers, feed_forward=feed_forward)
    use = ScoreUse(score_entry, score_place)
    module = SASRec(spec, width, history_layers, heads, feed_forward, use)
    return wrap(module, dropout=dropout)
