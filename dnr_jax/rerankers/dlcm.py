"""DLCM: a GRU reads the initial ranking, and its last state is the context of every candidate.

Ai et al. 2018, arXiv 1804.05936. The GRU reads the candidates from the lowest to the highest score,
so the best ones are the most recent in its last state s_n. With o_i its state after candidate i,
the logit is `w (o_i tanh(W s_n + b))`. By default, `score_place="late"`, a head of two layers that
also reads x_i replaces w. The model depends on the order of the scores even with
`score_entry="none"`; of tied scores the first in
storage is read last. The paper's input `[h_i, x_i]` is the
score entry "concatenate" at the place "early".

Its own loss is AttRank on the plain logits; public ports clip negative logits to 0.

Deviations: inputs are the fused user and item states h in place of hand-made features, and there is
one head, whereas the paper allows several in parallel.

`matching=True` puts the product of history and candidate into h (`nn.user_state`), which the
paper does not have.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import trained_by, wrap
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.layers import Dense
from dnr_jax.nn.losses import attrank
from dnr_jax.nn.recurrent import GRU
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.types import Array, FeatureSpec, Request, Reranker, Task


class DLCM(nn.Module):
    """The module behind `dlcm`.

    The order of the steps depends on the scores, so the GRU runs once per set of scores.
    """

    spec: FeatureSpec
    settings: Trunk

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        width, scores = self.settings.width, self.settings.scores
        self.request_encoder = RequestEncoder(self.spec, self.settings)
        self.fusion = Fusion(width)
        self.early_entry = EarlyEntry(scores)
        self.ranking = GRU(width)
        self.context = Dense(width)
        self.head = ScoredHead(scores, width)

    def encode(self, request: Request, *, drop: Drop) -> Array:
        """Return the candidate states h `[B, N, D]`."""
        user, items = self.request_encoder(request, drop=drop)
        return self.fusion(user, items, drop=drop)

    def decode(self, memory: Array, scores: Array, where: Array, *, drop: Drop) -> Array:
        """Return the logits `[B, N]`, those of the head on `o_i tanh(W s_n + b)`."""
        tokens = self.early_entry(memory, scores)
        order = lowest_first(scores, where)
        states = self.ranking(
            jnp.take_along_axis(tokens, order[..., None], axis=1),
            jnp.take_along_axis(where, order, axis=1),
        )
        # Padding comes last and does not change the state.
        context = drop(jnp.tanh(self.context(states[:, -1:])))
        places = jnp.argsort(order, axis=1)
        outputs = jnp.take_along_axis(states, places[..., None], axis=1)
        return self.head(outputs * context, scores)


def lowest_first(scores: Array, where: Array) -> Array:
    """Sort the real candidates by ascending score, padding last: indices `int32 [B, N]`."""
    return jnp.argsort(-ops.ranks(scores, where), axis=-1, stable=True)


def dlcm(task: Task, settings: Trunk) -> Reranker:
    """Build DLCM (Ai et al. 2018, arXiv 1804.05936)."""
    scorer = wrap(DLCM(task.spec, settings), dropout=settings.dropout)
    return trained_by(scorer, attrank, log_odds=False)
