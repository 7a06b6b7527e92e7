"""DCDR-style: discrete conditional diffusion of lists, DCDR-P (swaps) and DCDR-T (tokens).

Lin et al. 2024, arXiv 2308.06982, from its abstract and notes; schedule, number of steps and
encoding of the condition are ours. R_0 is the logged list, its feedback c the condition; noise
leads to R_t (see `nn.discrete_diffusion`), and the denoiser p(R_{t-1} | R_t, c, t) is trained by
cross-entropy: against the sampled swap's inverse (P), or the posterior of every slot (T), which is
KL divergence plus a constant. To rerank, c is all ones; a beam steps back T times, and a list
evaluator picks the best list seen, the start included.

Ours: the state is the shown list alone, as the order behind it is never shown; the start is the
order of the model's own scorer, where the paper starts from the retriever's; all T steps are run
and none is skipped (the best list seen counts, so stopping early would only save time); the beam
drops repeated lists; T builds lists without repeats.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import arranging, module_loss, wrap
from dnr_jax.nn.attention import Transformer
from dnr_jax.nn.diffusion import StepEmbedding
from dnr_jax.nn.discrete_diffusion import PERMUTATION, TOKEN, Process, drop_repeats
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.list_evaluator import ListEvaluator, evaluator_loss, list_value
from dnr_jax.nn.lists import score_list, take_items, top_list
from dnr_jax.nn.losses import bce
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead, ScoreUse
from dnr_jax.nn.sizes import check_heads, check_positive
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.types import Array, Batch, FeatureSpec, Request, Reranker, Stage

# Feedback of a slot: 0, 1, or not known (unjudged, or hidden from the denoiser).
_LIKED, _UNKNOWN = 1, 2


class Denoiser(nn.Module):
    """Transformer over `h_{l_k} + p_k + E_c[c_k] + s_t`; slot k gives a logit to every candidate.

    Attributes:
      layers, heads, feed_forward: see `Transformer`.
      total: T.
    """

    layers: int
    heads: int
    feed_forward: int
    total: int

    @nn.compact
    def __call__(
        self, items: Array, lists: Array, condition: Array, steps: Array, *, drop: Drop
    ) -> Array:
        """Return logits `float32 [B, W, K, N]`: `(W_q o_k) . (W_k h_i) / sqrt(D)`.

        Args:
          items: h, `float32 [B, N, D]`.
          lists: `int32 [B, W, K]`.
          condition: `int32 [B, K]`, 0, 1 or 2 = not known.
          steps: t, `int32 [B]`.
          drop: dropout.
        """
        width = items.shape[-1]
        initial = nn.initializers.normal(0.02)
        places = self.param("places", initial, (lists.shape[-1], width))
        feedback = self.param("feedback", initial, (3, width))
        step = StepEmbedding(width, self.total)(steps)
        known = places[None] + jnp.take(feedback, condition, axis=0) + step[:, None]
        tokens = (take_items(items, lists) + known[:, None]).reshape(-1, *places.shape)
        encoder = Transformer(self.layers, self.heads, self.feed_forward, causal=False)
        encoded = encoder(tokens, lists.reshape(len(tokens), -1) >= 0, drop=drop)
        queries = nn.Dense(width, name="slot")(encoded).reshape(*lists.shape, width)
        keys = nn.Dense(width, use_bias=False, name="item")(items)
        return jnp.einsum("bwkd,bnd->bwkn", queries, keys) / jnp.sqrt(width)


class DCDR(nn.Module):
    """The module behind `dcdr_p` and `dcdr_t`; see there for the attributes."""

    spec: FeatureSpec
    width: int
    slate_size: int
    layers: int
    heads: int
    feed_forward: int
    history_layers: int
    betas: tuple[float, ...]
    condition_dropout: float
    beam: int
    process: Process
    scores: ScoreUse

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        front = (self.history_layers, self.heads, self.feed_forward)
        sizes = (self.layers, self.heads, self.feed_forward)
        self.request_encoder = RequestEncoder(self.spec, self.width, *front)
        self.fusion = Fusion(self.width)
        self.early_entry = EarlyEntry(self.scores)
        self.head = ScoredHead(self.scores, self.width)
        self.denoiser = Denoiser(*sizes, len(self.betas))
        self.evaluator = ListEvaluator(
            self.spec, self.width, self.slate_size, *sizes, self.history_layers
        )

    def encode(self, request: Request, *, drop: Drop) -> tuple[Array, Array]:
        """Return the candidate states h, and those of the evaluator, `[B, N, D]` each."""
        return self._read(request, drop=drop), self.evaluator.read(request, drop=drop)

    def decode(
        self, memory: tuple[Array, Array], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the scorer's logits `[B, N]`; the start of the reverse process is their order."""
        return self.head(self.early_entry(memory[0], scores), scores)

    def arrange(self, memory: tuple[Array, Array], scores: Array, where: Array) -> Array:
        """Score the list that the evaluator likes best, of those seen on the way back."""
        logits = self.decode(memory, scores, where, drop=identity)
        seen, alive = self._search(memory[0], top_list(logits, where, self.slate_size), where)
        values = list_value(self.evaluator(memory[1], seen, drop=identity), seen)
        best = jnp.argmax(jnp.where(alive, values, -1.0), axis=1)
        chosen = jnp.take_along_axis(seen, best[:, None, None], axis=1)[:, 0]
        return score_list(chosen, logits, where)

    def evaluator_loss(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the evaluator's loss."""
        return evaluator_loss(self.evaluator, batch, drop=drop)

    def loss(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Add the scorer's binary cross-entropy and the denoiser's loss."""
        items = self._read(batch.request, drop=drop)
        logits = self.head(self.early_entry(items, batch.scores), batch.scores)
        judged = bce(logits, batch.labels, batch.weights)
        return judged + self._denoising_loss(items, batch, drop=drop, key=key)

    def _read(self, request: Request, *, drop: Drop) -> Array:
        return self.fusion(*self.request_encoder(request, drop=drop), drop=drop)

    def _denoising_loss(self, items: Array, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute -sum q log p of a step back, a mean over requests with a list."""
        where, total = batch.request.where, len(self.betas)
        keys = ops.per_request_keys(key, batch.request.index)
        step_keys, noise_keys, hide_keys = jax.vmap(jax.random.split, (0, None), 1)(keys, 3)
        steps = jax.vmap(lambda one: jax.random.randint(one, (), 1, total + 1))(step_keys)
        hide = jax.vmap(lambda one: jax.random.bernoulli(one, self.condition_dropout))(hide_keys)
        start = jnp.where(take_items(where, batch.slate), batch.slate, -1)
        betas = jnp.asarray(self.betas, jnp.float32)
        noise = jax.vmap(self.process.noise, (0, 0, 0, 0, None))
        noisy, target = noise(noise_keys, start, where, steps, betas)
        condition = jnp.where(hide[:, None], _UNKNOWN, feedback_of(batch))
        logits = self.denoiser(items, noisy[:, None], condition, steps, drop=drop)
        found = self.process.log_probabilities(logits, noisy[:, None], where)[:, 0]
        losses = -(target * found).reshape(len(target), -1).sum(axis=-1)
        return ops.weighted_mean(losses, (start >= 0).any(axis=-1).astype(jnp.float32))

    def _search(self, items: Array, start: Array, where: Array) -> tuple[Array, Array]:
        """Step back from `start`: all lists `[B, 1 + T W, K]`, and which of them are real."""
        shape = (len(start), self.beam)
        liked = jnp.full(start.shape, _LIKED)
        lists = jnp.broadcast_to(start[:, None], (*shape, start.shape[1]))
        one = jnp.where(jnp.arange(self.beam) == 0, 0.0, ops.MASKED_LOGIT)
        totals = jnp.broadcast_to(one[None], shape)
        seen, alive = [start[:, None]], [jnp.ones((len(start), 1), bool)]
        for step in range(len(self.betas), 0, -1):
            steps = jnp.full(len(start), step)
            logits = self.denoiser(items, lists, liked, steps, drop=identity)
            log_probabilities = self.process.log_probabilities(logits, lists, where)
            lists, totals = self.process.propose(log_probabilities, lists, totals)
            totals = drop_repeats(lists, totals)
            seen.append(lists)
            alive.append(totals > ops.MASKED_LOGIT / 2)
        return jnp.concatenate(seen, axis=1), jnp.concatenate(alive, axis=1)

    def visit(self, request: Request, scores: Array) -> None:
        """Touch every submodule, for `init`."""
        memory = self.encode(request, drop=identity)
        self.arrange(memory, scores, request.where)


def feedback_of(batch: Batch) -> Array:
    """Return the feedback of the shown list: `int32 [B, K]`, 0, 1, or 2 = not known."""
    judged = (batch.slate >= 0) & (take_items(batch.weights, batch.slate) > 0)
    liked = take_items(batch.labels, batch.slate) > 0.5
    return jnp.where(judged, liked.astype(jnp.int32), _UNKNOWN)


def dcdr_p(
    spec: FeatureSpec,
    *,
    width: int,
    slate_size: int,
    layers: int,
    heads: int,
    feed_forward: int,
    dropout: float,
    history_layers: int,
    diffusion_steps: int,
    first_beta: float,
    last_beta: float,
    condition_dropout: float,
    beam: int,
    score_entry: str,
    score_place: str,
) -> Reranker:
    """Build DCDR-P (Lin et al. 2024, arXiv 2308.06982): a step swaps two candidates.

    Args:
      spec: column names and vocabulary sizes.
      width: D, a multiple of `heads`.
      slate_size: K >= 1, length of the lists.
      layers: transformer blocks of the denoiser and of the evaluator, >= 1.
      heads: attention heads.
      feed_forward: hidden width of each block's FFN.
      dropout: rate in [0, 1).
      history_layers: transformer blocks over the history, >= 1.
      diffusion_steps: T >= 1, steps of the noise and of its reversal.
      first_beta: beta_1; beta grows linearly to beta_T.
      last_beta: beta_T, with 0 < `first_beta` <= `last_beta` < 1.
      condition_dropout: share in [0, 1) of training requests whose feedback the denoiser does not
        see.
      beam: W >= 1, lists kept at every step of the reversal.
      score_entry: "none", "concatenate", "add" or "weight", for the scorer; the denoiser reads no
        scores. See `nn.score_entry`.
      score_place: "late" (non-linear head), "late_linear" or "early" (which, as the scorer has no
        candidate encoder, puts x into h before a linear head).

    Raises:
      ValueError: a size, rate or name is outside its range.
    """
    check_heads(width, heads)
    check_positive(
        slate_size=slate_size, layers=layers, feed_forward=feed_forward, beam=beam,
        history_layers=history_layers, diffusion_steps=diffusion_steps,
    )
    use = ScoreUse(score_entry, score_place)
    sizes = (width, slate_size, layers, heads, feed_forward, history_layers)
    betas = check_betas(first_beta, last_beta, diffusion_steps)
    module = DCDR(spec, *sizes, betas, condition_dropout, beam, PERMUTATION, use)
    return _train(module, dropout)
