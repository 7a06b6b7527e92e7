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
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead, ScoreUse
from dnr_jax.types import Array


class Rollout(NamedTuple):
    """Lists that a policy built, and what it thought of each choice.

    Attributes:
      lists: `int32 [B, L, K]`, indices into N; -1 once no candidate is left.
      log_probabilities: `float32 [B, L, K]`, of each choice among those left; 0 in empty places.
      entropies: `float32 [B, L, K]`, of each choice's distribution; 0 in empty places.
    """

    lists: Array
    log_probabilities: Array
    entropies: Array


class LSTMCell(nn.Module):
    """One step of `nn.recurrent.LSTM`, with the same parameters, on any leading axes.

    Attributes:
      width: H, of the state.
    """

    width: int

    @nn.compact
    def __call__(self, state: tuple[Array, Array], x: Array) -> tuple[Array, Array]:
        """Return the next `(h, c)`, `float32 [..., H]` each, for `x` `float32 [..., F]`."""
        hidden, cell = state
        kernel = self.param("kernel", nn.initializers.orthogonal(), (self.width, 4 * self.width))
        gates = nn.Dense(4 * self.width, name="input")(x) + hidden @ kernel
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


class Pointer(nn.Module):
    """An LSTM fed with the item chosen last (zeros first) points at one of those left.

    `c_k, m_k = LSTM(m_{k-1}, e_{l_{k-1}})`; `t_ik = LN(dropout(relu(W [e_i, c_k] + b)))`; the logit
    of candidate i at step k is `ScoredHead(t_ik, x_i)`, with e_i = `EarlyEntry(h_i, x_i)`.

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
        self.of_item = nn.Dense(self.width)
        self.of_state = nn.Dense(self.width, use_bias=False)
        self.norm = nn.LayerNorm()
        self.head = ScoredHead(self.use, self.width)

    def first(self, tokens: Array, scores: Array, *, drop: Drop) -> Array:
        """Return the logits of the first choice, `float32 [B, N]`.

        Args:
          tokens: h, `float32 [B, N, D]`.
          scores: x, `float32 [B, N]`.
          drop: dropout.
        """
        start = jnp.zeros((len(tokens), 1, self.width))
        items = self.early_entry(tokens, scores)
        state, _ = self.cell((start, start), start)
        return self._point(items, state, scores, drop)[:, 0]

    def unroll(
        self, tokens: Array, scores: Array, where: Array, noise: Array, *, drop: Drop
    ) -> Rollout:
        """Build lists of the arg max of logits plus `noise` among the candidates left.

        Zero noise is greedy; Gumbel noise draws from the policy. Log-probabilities and entropies
        are differentiable, choices are not.

        Args:
          tokens: h, `float32 [B, N, D]`.
          scores: x, `float32 [B, N]`.
          where: `bool [B, N]`.
          noise: `float32 [B, L, K, N]`.
          drop: dropout.
        """
        items = self.early_entry(tokens, scores)
        last = jnp.zeros((*noise.shape[:2], self.width))
        state, left = (last, last), jnp.broadcast_to(where[:, None], (*noise.shape[:2], len(where[0])))
        steps = []
        for step in range(noise.shape[2]):
            state = self.cell(state, last)
            logits = self._point(items, state[0], scores, drop)
            choice, made = _choose(logits, left, noise[:, :, step])
            steps.append(made)
            last = jnp.einsum("bln,bnd->bld", choice.astype(items.dtype), items)
            left = left & ~choice
        return Rollout(*(jnp.stack(part, axis=-1) for part in zip(*steps, strict=True)))

    def _point(self, items: Array, state: Array, scores: Array, drop: Drop) -> Array:
        """Return logits `[B, L, N]` for `items [B, N, D]` and `state [B, L, D]`."""
        joined = self.of_item(items)[:, None] + self.of_state(state)[:, :, None]
        hidden = self.norm(drop(nn.relu(joined)))
        return self.head(hidden, jnp.broadcast_to(scores[:, None], hidden.shape[:-1]))


def _choose(logits: Array, left: Array, noise: Array) -> tuple[Array, Rollout]:
    """Choose one of those `left`, all `[B, L, N]`: a mask of the choice, and one step's record."""
    log_probabilities = ops.masked_log_softmax(logits, left)
    best = jnp.argmax(jnp.where(left, jax.lax.stop_gradient(logits) + noise, -jnp.inf), axis=-1)
    choice = (best[..., None] == jnp.arange(logits.shape[-1])) & left
    item = jnp.where(left.any(axis=-1), best, -1).astype(jnp.int32)
    chosen = jnp.where(choice, log_probabilities, 0.0).sum(axis=-1)
    # Masked log-probabilities are 0.
    entropy = -(jnp.exp(log_probabilities) * log_probabilities).sum(axis=-1)
    return choice, Rollout(item, chosen, entropy)
