"""GRU4Rec: a recurrent network over the history, candidates matched by inner product.

Hidasi et al. 2016, arXiv 1511.06939: `q = W h_T + b`, `s_i = q . E[i]`, with one item table for
history and candidates. What only the history has (feedback) is added to E there. The paper trains
on the next item with BPR or TOP1 over parallel sessions; here the model scores the candidates of a
request and is trained on their labels (binary cross-entropy).
"""

from __future__ import annotations

from flax import linen as nn

from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.embeddings import FeatureEmbedding
from dnr_jax.nn.layers import Dense
from dnr_jax.nn.recurrent import GRU
from dnr_jax.nn.score_entry import ProductHead
from dnr_jax.nn.trunk import Trunk
from dnr_jax.types import Array, FeatureSpec, Request, Reranker, Task


class GRU4Rec(nn.Module):
    """The module behind `gru4rec`."""

    spec: FeatureSpec
    settings: Trunk

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        width = self.settings.width
        self.embedding = FeatureEmbedding(self.spec, width)
        self.recurrent = GRU(width)
        self.state = Dense(width)
        self.head = ProductHead(self.settings.scores, width)

    def encode(self, request: Request, *, drop: Drop) -> tuple[Array, Array]:
        """Return q `[B, D]` and the candidates' embeddings `[B, N, D]`."""
        parts = self.embedding(request)
        # Padding does not change the state, so the last step holds the state after the last event.
        events = drop(parts.history_items + parts.history_events)
        states = self.recurrent(events, request.history_where)
        return self.state(drop(states[:, -1])), parts.items

    def decode(
        self, memory: tuple[Array, Array], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the logits `[B, N]`."""
        return self.head(*memory, scores)


def gru4rec(task: Task, settings: Trunk) -> Reranker:
    """Build GRU4Rec (Hidasi et al. 2016, arXiv 1511.06939)."""
    return wrap(GRU4Rec(task.spec, settings), dropout=settings.dropout)
