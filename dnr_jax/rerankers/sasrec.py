"""SASRec: self-attention over the history, candidates matched by inner product.

Kang and McAuley 2018, arXiv 1808.09781: `H = sqrt(D) E[history] + P`, then causal attention blocks;
q is the output at the last position, and `s_i = q . E[i]` with one item table.

Deviations: H passes a LayerNorm first, and what only the history has (feedback) is added to E; the
blocks are post-norm, with 4 heads by default; positions count from the most recent event (more
padding changes nothing). The targets are the labels of the candidates (binary cross-entropy),
whereas the paper predicts each next item against one sampled negative.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.embeddings import FeatureEmbedding
from dnr_jax.nn.score_entry import ProductHead
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import HistoryEncoder
from dnr_jax.types import Array, FeatureSpec, Request, Reranker, Task


class SASRec(nn.Module):
    """The module behind `sasrec`."""

    spec: FeatureSpec
    settings: Trunk

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        self.embedding = FeatureEmbedding(self.spec, self.settings.width)
        self.history = HistoryEncoder(self.settings)
        self.head = ProductHead(self.settings.scores, self.settings.width)

    def encode(self, request: Request, *, drop: Drop) -> tuple[Array, Array]:
        """Return q `[B, D]`, 0 for an empty history, and the candidates `[B, N, D]`."""
        parts = self.embedding(request)
        events = jnp.sqrt(self.settings.width) * (parts.history_items + parts.history_events)
        return self.history(events, request.history_where, drop=drop), parts.items

    def decode(
        self, memory: tuple[Array, Array], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the logits `[B, N]`."""
        return self.head(*memory, scores)


def sasrec(task: Task, settings: Trunk) -> Reranker:
    """Build SASRec (Kang and McAuley 2018, arXiv 1808.09781)."""
    return wrap(SASRec(task.spec, settings), dropout=settings.dropout)
