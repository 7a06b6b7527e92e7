"""MIR: candidates and history attend to one another through a matrix of affinities.

Xi et al. 2022, "Multi-Level Interaction Reranking with User Behavior History" (SIGIR). With
candidates V (a set), events Q (a list), user state u and event age a_l:

- `V = [h, MHA(h, h, h)]`, `Q = [e, BiLSTM(e)]`;
- `C = tanh(Q W V^T (1 + D))`, `D_l = exp(-theta_u a_l)`, `theta_u = ReLU(MLP(u))`;
- `v_i = sum_j softmax_j(tanh(V_i w_v + sum_l (Q_l w_q) C_lj)) V_j`;
- `q_i = sum_l softmax_l(tanh(Q_l w_q + (V_i w_v) sum_j C_lj)) Q_l`;
- a network of `[h, v, q]` gives the logit.

The authors' code differs: w_v and w_q have a column per place in the list, so the logits depend on
the storage order (here: one column); affinities grow with age (here: they fall); q lacks the term
Q_l w_q. The feature-level affinities are left out: they need raw features, and on ids they would
be one more bilinear form, which W already covers. Ages are index distances, not times.

`matching=True` puts the product of history and candidate into e and h (`nn.user_state`), which the
paper does not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.attention import Attention
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.history_tokens import HistoryRequestEncoder
from dnr_jax.nn.layers import MLP, Dense
from dnr_jax.nn.recurrent import LSTM
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import Fusion
from dnr_jax.types import Array, FeatureSpec, Request, Reranker, Task


@dataclass(frozen=True, kw_only=True)
class MIRSettings(Trunk):
    """Knobs of MIR: only those of the trunk, whose width must be even."""

    def check(self) -> None:
        """Refuse a width that the two directions of the LSTM cannot share."""
        super().check()
        if self.width % 2:
            raise ValueError(f"width is {self.width}, which is odd: choose an even one")


class History(NamedTuple):
    """The encoded history, with which the candidates interact.

    Attributes:
      events: Q, `float32 [B, T, Fq]`.
      decay: theta_u, `float32 [B]` >= 0.
      where: `bool [B, T]`, left-padded.
    """

    events: Array
    decay: Array
    where: Array


class HistoryList(nn.Module):
    """Make `Q = [e, BiLSTM(e)]`, each direction with half the width of e.

    Attributes:
      width: D, even.
    """

    width: int

    @nn.compact
    def __call__(self, events: Array, where: Array) -> Array:
        """Map `events [B, T, D]` under `where [B, T]` to `float32 [B, T, 2 D]`."""
        half = self.width // 2
        forward = LSTM(half, name="forward")(events, where)
        backward = LSTM(half, reverse=True, name="backward")(events, where)
        return jnp.concatenate([events, forward, backward], axis=-1)


class SetToList(nn.Module):
    """Pool candidates and history by their affinities C; see the equations of the module."""

    @nn.compact
    def __call__(self, candidates: Array, history: History, where: Array) -> Array:
        """Return `[v, q]`, `float32 [B, N, Fv + Fq]`; q is 0 for an empty history.

        `candidates` is V, `float32 [B, N, Fv]` under `where` `bool [B, N]`.
        """
        size = candidates.shape[-1]
        # Affinities start near 1: the usual kernel is sqrt(Fv) times larger and saturates C.
        initial = nn.initializers.variance_scaling(1 / size, "fan_in", "normal")
        bilinear = Dense(size, use_bias=False, kernel_init=initial, name="bilinear")
        raw = bilinear(history.events) @ jnp.swapaxes(candidates, 1, 2)
        both = history.where[:, :, None] & where[:, None, :]
        c = jnp.where(both, affinities(raw, history.decay), 0.0)
        of_v = Dense(1, use_bias=False, name="candidate")(candidates)  # [B, N, 1]
        of_q = jnp.swapaxes(Dense(1, use_bias=False, name="event")(history.events), 1, 2)
        to_candidates = masked_softmax(jnp.tanh(of_v + of_q @ c), where)
        to_events = masked_softmax(jnp.tanh(of_q + of_v * c.sum(axis=2)[:, None]), history.where)
        v = to_candidates.astype(candidates.dtype) @ candidates
        q = to_events.astype(history.events.dtype) @ history.events
        return jnp.concatenate([v, q], axis=-1)


def affinities(raw: Array, decay: Array) -> Array:
    """Compute `tanh(C (1 + exp(-theta a_l)))` with a_l = T - l, the number of events after l.

    Args:
      raw: C, `float32 [B, T, N]`.
      decay: theta, `float32 [B]`.
    """
    ages = jnp.arange(raw.shape[1], dtype=jnp.float32)[::-1]
    return jnp.tanh(raw * (1 + jnp.exp(-decay[:, None, None] * ages[None, :, None])))


def masked_softmax(logits: Array, where: Array) -> Array:
    """Softmax of `logits [B, Q, L]` over the keys with `where [B, L]`; 0 for the others."""
    seen = jnp.broadcast_to(where[:, None], logits.shape)
    return jnp.where(seen, jnp.exp(ops.masked_log_softmax(logits, seen)), 0.0)


class MIR(nn.Module):
    """The module behind `mir`.

    Everything but the head runs in `encode`. With early entry the interaction of candidates and
    history runs in `decode` instead, once per set of scores.
    """

    spec: FeatureSpec
    settings: MIRSettings

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        width, scores = self.settings.width, self.settings.scores
        self.request_encoder = HistoryRequestEncoder(self.spec, self.settings)
        self.fusion = Fusion(width)
        self.history_list = HistoryList(width)
        self.decay = MLP((max(1, width // 4),), 1)
        self.early_entry = EarlyEntry(scores)
        self.candidate_set = Attention(self.settings.heads)
        self.interaction = SetToList()
        self.network = MLP((4 * width, 3 * width // 2), 5 * width // 8)
        self.head = ScoredHead(scores, width)

    def encode(self, request: Request, *, drop: Drop) -> Array | tuple[Array, History]:
        """Return the head's input `[B, N, .]`, or h and the history where the entry is early."""
        user, items, events = self.request_encoder(request, drop=drop)
        tokens = self.fusion(user, items, drop=drop)
        history = History(
            self.history_list(events, request.history_where),
            nn.relu(self.decay(user, drop=drop)[..., 0]),
            request.history_where,
        )
        if self.settings.scores.early:
            return tokens, history
        return self._interact(tokens, history, request.where, drop=drop)

    def decode(
        self, memory: Array | tuple[Array, History], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the logits `[B, N]`."""
        if isinstance(memory, tuple):
            tokens, history = memory
            memory = self._interact(self.early_entry(tokens, scores), history, where, drop=drop)
        return self.head(memory, scores)

    def _interact(self, tokens: Array, history: History, where: Array, *, drop: Drop) -> Array:
        mixed = self.candidate_set(tokens, tokens, where, causal=False)
        candidates = jnp.concatenate([tokens, mixed], axis=-1)
        met = self.interaction(candidates, history, where)
        return nn.relu(self.network(jnp.concatenate([tokens, met], axis=-1), drop=drop))


def mir(task: Task, settings: MIRSettings) -> Reranker:
    """Build MIR (Xi et al. 2022, SIGIR) in a form that is equivariant over the candidates.

    Sizes scale with the width D, which is 128 in the paper (its sizes in brackets): D / 2 (64) for
    each direction of the LSTM, D / 4 (32) for the network of the decay, and 4 D, 3 D / 2, 5 D / 8
    (500, 200, 80) for the last network. Hidden layers have ReLU, dropout and LayerNorm. The loss
    is binary cross-entropy, the authors' default. An event is its item encoding plus its other
    columns.
    """
    return wrap(MIR(task.spec, settings), dropout=settings.dropout)
