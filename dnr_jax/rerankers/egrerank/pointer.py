"""A pointer policy: builds a list item by item, each choice conditioned on those before it.

Vinyals et al. 2015, arXiv 1506.03134, with a feed-forward pointer in place of its attention form.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.dropout import Drop
from dnr_jax.nn.layers import Dense, LayerNorm
from dnr_jax.nn.recurrent import LSTMCell
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead, ScoreUse
from dnr_jax.types import Array


class Rollout(NamedTuple):
    """Lists that a policy built, with log-probability and entropy of each choice.

    Attributes:
      lists: `int32 [B, L, K]`, indices into N without repeats; -1 once no candidate is left.
      log_probabilities: `float32 [B, L, K]`, of each choice among those left; 0 in empty places.
      entropies: `float32 [B, L, K]`, of each choice's distribution; 0 in empty places.
    """

    lists: Array
    log_probabilities: Array
    entropies: Array


class _Progress(NamedTuple):
    """State of unfinished lists: the LSTM's, the last item `[B, L, D]`, the candidates left."""

    memory: tuple[Array, Array]
    last: Array
    left: Array


class Pointer(nn.Module):
    """An LSTM that reads the item chosen last (zeros at first) points at one of those left.

    `c_k, m_k = LSTM(c_{k-1}, m_{k-1}; e_{l_{k-1}})`; `t_ik = LN(relu(W e_i + V c_k + b))`; the
    logit of candidate i at step k is `ScoredHead(t_ik, x_i)`, with e_i = dropout of
    `EarlyEntry(h_i, x_i)`. Without the ReLU a linear head would add the same number for c_k to all
    candidates, which the softmax removes.

    Attributes:
      use: entry and place of the scores.
      width: D, of candidates and state.
    """

    use: ScoreUse
    width: int

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        self.early_entry = EarlyEntry(self.use)
        self.cell = LSTMCell(self.width)
        self.of_item = Dense(self.width)
        self.of_state = Dense(self.width, use_bias=False)
        self.norm = LayerNorm()
        self.head = ScoredHead(self.use, self.width)

    def first(self, tokens: Array, scores: Array, *, drop: Drop) -> Array:
        """Return the logits of the first choice, `float32 [B, N]`.

        Args:
          tokens: h, `float32 [B, N, D]`.
          scores: x, `float32 [B, N]`.
          drop: dropout, on e.
        """
        items = drop(self.early_entry(tokens, scores))
        nothing = jnp.zeros((items.shape[0], 1, self.width), items.dtype)
        state, _ = self.cell((nothing, nothing), nothing)
        return self._point(self.of_item(items), state, scores)[:, 0]

    def unroll(
        self, tokens: Array, scores: Array, where: Array, noise: Array, *, drop: Drop
    ) -> Rollout:
        """Build lists by the highest sum of logit and `noise` among the candidates left.

        Zero noise is greedy; standard Gumbel noise, independent for all entries, draws from the
        policy. Log-probabilities and entropies are the policy's own, whatever the noise, and are
        differentiable; choices are not.

        Args:
          tokens: h, `float32 [B, N, D]`.
          scores: x, `float32 [B, N]`.
          where: `bool [B, N]`.
          noise: `float32 [B, L, K, N]`.
          drop: dropout, on e, the same for all lists of a request.
        """
        items = drop(self.early_entry(tokens, scores))
        projected = self.of_item(items)

        def step(pointer: Pointer, now: _Progress, jitter: Array) -> tuple[_Progress, Rollout]:
            memory = pointer.cell(now.memory, now.last)
            logits = pointer._point(projected, memory[0], scores)
            choice, record = _choose(logits, now.left, jitter)
            last = jnp.einsum("bln,bnd->bld", choice.astype(items.dtype), items)
            return _Progress(memory, last, now.left & ~choice), record

        nothing = jnp.zeros((*noise.shape[:2], self.width), items.dtype)
        left = jnp.broadcast_to(where[:, None], (*noise.shape[:2], noise.shape[-1]))
        # A step's activations are [B, L, N, D]: recomputed for the gradient, not kept K times.
        loop = nn.scan(
            nn.remat(step),
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=2,
            out_axes=-1,
        )
        return loop(self, _Progress((nothing, nothing), nothing, left), noise)[1]

    def _point(self, projected: Array, state: Array, scores: Array) -> Array:
        """Return logits `[B, L, N]` for `W e + b` `[B, N, D]` and `state` `[B, L, D]`."""
        hidden = self.norm(nn.relu(projected[:, None] + self.of_state(state)[:, :, None]))
        return self.head(hidden, jnp.broadcast_to(scores[:, None], hidden.shape[:-1]))


def _choose(logits: Array, left: Array, noise: Array) -> tuple[Array, Rollout]:
    """Choose one of those `left`, all `[B, L, N]`; return its mask and the record of the place."""
    log_probabilities = ops.masked_log_softmax(logits, left)
    best = jnp.argmax(jnp.where(left, logits + noise, -jnp.inf), axis=-1)
    choice = jax.nn.one_hot(best, logits.shape[-1], dtype=bool) & left
    item = jnp.where(left.any(axis=-1), best, -1).astype(jnp.int32)
    chosen = jnp.where(choice, log_probabilities, 0.0).sum(axis=-1)
    # Masked log-probabilities are 0, and so are their terms.
    entropy = -(jnp.exp(log_probabilities) * log_probabilities).sum(axis=-1)
    return choice, Rollout(item, chosen, entropy)
