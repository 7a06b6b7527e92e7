"""MiDNN: a pointwise network that sees each feature also relative to its list.

Zhuang et al. 2018, IJCAI, "Globally Optimized Mutual Influence Aware Ranking in E-Commerce Search":
every local feature f gets a global one, `g = (f - min) / (max - min)` over the candidates of the
request. The paper's hand-made features do not exist here: f_i is the fused user and item state h_i
(with x_i under early entry). Layer norm stands in place of batch norm, the hidden widths are 4 D
and 2 D, and g is 0.5 where a feature is constant. The paper's miRNN is another model.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.mlp import MLP
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead, ScoreUse
from dnr_jax.nn.sizes import check_heads, check_positive
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.types import Array, FeatureSpec, Request, Reranker


class MiDNN(nn.Module):
    """The module behind `midnn`; see there for the attributes."""

    spec: FeatureSpec
    width: int
    history_layers: int
    heads: int
    feed_forward: int
    scores: ScoreUse

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        self.request_encoder = RequestEncoder(
            self.spec, self.width, self.history_layers, self.heads, self.feed_forward
        )
        self.fusion = Fusion(self.width)
        self.early_entry = EarlyEntry(self.scores)
        self.network = MLP((4 * self.width, 2 * self.width), self.width)
        self.head = ScoredHead(self.scores, self.width)

    def encode(self, request: Request, *, drop: Drop) -> Array:
        """Return the output of the network `[B, N, D]`, or h where early entry needs scores."""
        user, items = self.request_encoder(request, drop=drop)
        features = self.fusion(user, items, drop=drop)
        return features if self.scores.early else self._extended(features, request.where, drop)

    def decode(self, memory: Array, scores: Array, where: Array, *, drop: Drop) -> Array:
        """Return the logits `[B, N]`."""
        if self.scores.early:
            memory = self._extended(self.early_entry(memory, scores), where, drop)
        return self.head(memory, scores)

    def _extended(self, features: Array, where: Array, drop: Drop) -> Array:
        """Run the network on local and global features."""
        by_feature = jnp.swapaxes(features, 1, 2)
        relative = ops.min_max(by_feature, jnp.broadcast_to(where[:, None], by_feature.shape))
        both = jnp.concatenate([features, jnp.swapaxes(relative, 1, 2)], axis=-1)
        return nn.relu(self.network(both, drop=drop))


def midnn(
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
    """Build MiDNN (Zhuang et al. 2018, IJCAI).

    Args:
      spec: column names and vocabulary sizes.
      width: D, a multiple of `heads`.
      history_layers: transformer blocks over the history, >= 1.
      heads: attention heads of the history encoder.
      feed_forward: hidden width of each block's FFN.
      dropout: rate in [0, 1).
      score_entry: "none", "concatenate", "add" or "weight"; see `nn.score_entry`.
      score_place: "late" (non-linear head), "late_linear" or "early".

    Raises:
      ValueError: a size, rate or name is outside its range.
    """
    check_heads(width, heads)
    check_positive(history_layers=history_layers, feed_forward=feed_forward)
    use = ScoreUse(score_entry, score_place)
    module = MiDNN(spec, width, history_layers, heads, feed_forward, use)
    return wrap(module, dropout=dropout)
