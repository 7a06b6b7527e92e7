"""A light scorer that sees one candidate at a time: the shared network of pointwise methods."""

from __future__ import annotations

from flax import linen as nn

from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.layers import MLP
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.types import Array, FeatureSpec, Request


class PointwiseScorer(nn.Module):
    """`s_i = head(MLP(h_i), x_i)` on the fused user and item states h: no candidate sees another.

    Attributes:
      spec: column names and vocabulary sizes.
      trunk: sizes, and how x enters.
    """

    spec: FeatureSpec
    trunk: Trunk

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        width, scores = self.trunk.width, self.trunk.scores
        self.request_encoder = RequestEncoder(self.spec, self.trunk)
        self.fusion = Fusion(width)
        self.early_entry = EarlyEntry(scores)
        self.network = MLP((width,), width)
        self.head = ScoredHead(scores, width)

    def encode(self, request: Request, *, drop: Drop) -> Array:
        """Return the candidate states h `float32 [B, N, D]`."""
        return self.fusion(*self.request_encoder(request, drop=drop), drop=drop)

    def vectors(self, request: Request, *, drop: Drop) -> Array:
        """Return the head's input for each candidate, `[B, N, D]`, unless x enters early."""
        return self.network(self.encode(request, drop=drop), drop=drop)

    def decode(self, memory: Array, scores: Array, where: Array, *, drop: Drop) -> Array:
        """Return the logits `[B, N]`."""
        return self.head(self.network(self.early_entry(memory, scores), drop=drop), scores)

    def __call__(self, request: Request, scores: Array, *, drop: Drop) -> Array:
        """Return the logits `[B, N]` of a request and one set of scores."""
        return self.decode(self.encode(request, drop=drop), scores, request.where, drop=drop)
