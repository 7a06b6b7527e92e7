"""Matching transformer: SASRec's inner product plus a transformer over the matched candidates.

This model is not from a paper. It joins two parts that published rerankers use separately: the
match `q . e_i` of a sequence model (Kang and McAuley 2018, arXiv 1808.09781), and list context by
self-attention over the candidates (Pei et al. 2019, arXiv 1904.06813). Here the tokens of the
self-attention hold the match:

    t_i = W [q * e_i, e_i, q],    s_i = q . e_i + head(Transformer(t)_i, x_i)

A list model whose tokens only add user and item states would first have to learn the product.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.attention import Transformer
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.embeddings import FeatureEmbedding
from dnr_jax.nn.layers import Dense, LayerNorm
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import HistoryEncoder
from dnr_jax.types import Array, FeatureSpec, Request, Reranker, Task


class MatchingTransformer(nn.Module):
    """The module behind `matching_transformer`.

    The list encoder runs in `encode`, or in `decode` if the scores enter early.
    """

    spec: FeatureSpec
    settings: Trunk

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        settings = self.settings
        self.embedding = FeatureEmbedding(self.spec, settings.width)
        self.history = HistoryEncoder(settings)
        self.token = Dense(settings.width)
        self.token_norm = LayerNorm()
        self.early_entry = EarlyEntry(settings.scores)
        self.list_encoder = Transformer(*settings.blocks, causal=False)
        self.head = ScoredHead(settings.scores, settings.width)

    def encode(self, request: Request, *, drop: Drop) -> tuple[Array, Array]:
        """Return the match q . e `float32 [B, N]`, and the candidates' states `[B, N, D]`."""
        parts = self.embedding(request)
        events = jnp.sqrt(self.settings.width) * (parts.history_items + parts.history_events)
        state = self.history(events, request.history_where, drop=drop)[:, None]
        matched = state * parts.items
        around = jnp.broadcast_to(state, parts.items.shape)
        tokens = self.token(jnp.concatenate([matched, parts.items, around], axis=-1))
        tokens = drop(self.token_norm(tokens))
        if not self.settings.scores.early:
            tokens = self.list_encoder(tokens, request.where, drop=drop)
        return matched.astype(jnp.float32).sum(axis=-1), tokens

    def decode(
        self, memory: tuple[Array, Array], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the logits `[B, N]`."""
        match, tokens = memory
        if self.settings.scores.early:
            tokens = self.list_encoder(self.early_entry(tokens, scores), where, drop=drop)
        return match + self.head(tokens, scores)


def matching_transformer(task: Task, settings: Trunk) -> Reranker:
    """Build the matching transformer."""
    return wrap(MatchingTransformer(task.spec, settings), dropout=settings.dropout)
