"""GRU4Rec: a recurrent network over the history, candidates matched by inner product.

Hidasi et al. 2016, arXiv 1511.06939: `q = W h_T`, `s_i = q . E[i]`, with one item table for
history and candidates. The paper trains on the next item by BPR or TOP1 over parallel sessions;
here the model scores the candidates of a request and is trained by their labels (binary
cross-entropy).
"""

from __future__ import annotations

from flax import linen as nn

from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.embeddings import FeatureEmbedding
from dnr_jax.nn.layers import Dense
from dnr_jax.nn.recurrent import GRU
from dnr_jax.nn.score_entry import ProductHead, ScoreUse
from dnr_jax.nn.sizes import check_positive
from dnr_jax.types import Array, FeatureSpec, Request, Reranker


class GRU4Rec(nn.Module):
    """The module behind `gru4rec`; see there for the attributes."""

    spec: FeatureSpec
    width: int
    scores: ScoreUse

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        self.embedding = FeatureEmbedding(self.spec, self.width)
        self.recurrent = GRU(self.width)
        self.state = Dense(self.width)
        self.head = ProductHead(self.scores, self.width)

    def encode(self, request: Request, *, drop: Drop) -> tuple[Array, Array]:
        """Return q `[B, D]` and the candidates' embeddings `[B, N, D]`."""
        parts = self.embedding(request)
        # Padding leaves the state alone, so the last step holds the state after the last event.
        events = drop(parts.history_items + parts.history_events)
        states = self.recurrent(events, request.history_where)
        return self.state(drop(states[:, -1])), parts.items

    def decode(
        self, memory: tuple[Array, Array], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the logits `[B, N]`."""
        return self.head(*memory, scores)


def gru4rec(
    spec: FeatureSpec, *, width: int, dropout: float, score_entry: str, score_place: str
) -> Reranker:
    """Build GRU4Rec (Hidasi et al. 2016, arXiv 1511.06939).

    Args:
      spec: column names and vocabulary sizes.
      width: D, of embeddings and of the recurrent state.
      dropout: rate in [0, 1), on the events and on the last state.
      score_entry: "none", "concatenate", "add" or "weight"; see `nn.score_entry.ProductHead`.
      score_place: "late" (non-linear head), "late_linear" or "early".

    Raises:
      ValueError: a size, rate or name is outside its range.
    """
    check_positive(width=width)
    return wrap(GRU4Rec(spec, width, ScoreUse(score_entry, score_place)), dropout=dropout)
