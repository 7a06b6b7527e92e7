"""MiDNN: a pointwise network that also sees each feature relative to its list.

Zhuang et al. 2018, IJCAI, "Globally Optimized Mutual Influence Aware Ranking in E-Commerce Search":
every local feature f gets a global one, `g = (f - min) / (max - min)` over the candidates of the
request. In place of the paper's hand-made features, f_i is the fused user and item state h_i (with
x_i under early entry). Layer norm replaces batch norm, the hidden widths are 4 D and 2 D, and g is
0.5 where a feature is constant. The paper's miRNN is a different model.

`matching=True` puts the product of history and candidate into h (`nn.user_state`), which the
paper does not have.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.layers import MLP
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.types import Array, FeatureSpec, Request, Reranker, Task


class MiDNN(nn.Module):
    """The module behind `midnn`."""

    spec: FeatureSpec
    settings: Trunk

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        width, scores = self.settings.width, self.settings.scores
        self.request_encoder = RequestEncoder(self.spec, self.settings)
        self.fusion = Fusion(width)
        self.early_entry = EarlyEntry(scores)
        self.network = MLP((4 * width, 2 * width), width)
        self.head = ScoredHead(scores, width)

    def encode(self, request: Request, *, drop: Drop) -> Array:
        """Return the output of the network `[B, N, D]`, or h where early entry needs scores."""
        user, items = self.request_encoder(request, drop=drop)
        features = self.fusion(user, items, drop=drop)
        return (
            features
            if self.settings.scores.early
            else self._extended(features, request.where, drop)
        )

    def decode(self, memory: Array, scores: Array, where: Array, *, drop: Drop) -> Array:
        """Return the logits `[B, N]`."""
        if self.settings.scores.early:
            memory = self._extended(self.early_entry(memory, scores), where, drop)
        return self.head(memory, scores)

    def _extended(self, features: Array, where: Array, drop: Drop) -> Array:
        """Run the network on local and global features."""
        by_feature = jnp.swapaxes(features, 1, 2)
        relative = ops.min_max(by_feature, jnp.broadcast_to(where[:, None], by_feature.shape))
        both = jnp.concatenate([features, jnp.swapaxes(relative, 1, 2)], axis=-1)
        return nn.relu(self.network(both, drop=drop))


def midnn(task: Task, settings: Trunk) -> Reranker:
    """Build MiDNN (Zhuang et al. 2018, IJCAI)."""
    return wrap(MiDNN(task.spec, settings), dropout=settings.dropout)
