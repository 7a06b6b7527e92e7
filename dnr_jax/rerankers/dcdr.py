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
from dnr_jax.nn.discrete_diffusion import PERMUTATION, TOKEN, Denoiser, Process, step_back
from dnr_jax.nn.dropout import Drop, check_rate, identity
from dnr_jax.nn.list_evaluator import ListEvaluator, evaluator_loss, list_value
from dnr_jax.nn.lists import score_list, take_items, top_list
from dnr_jax.nn.losses import bce
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead, ScoreUse
from dnr_jax.nn.sizes import check_heads, check_positive
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.types import Array, Batch, FeatureSpec, Request, Reranker, Stage

VARIANTS = {"permutation": PERMUTATION, "token": TOKEN}
# Feedback of a slot: 0, 1, or not known (unjudged, or hidden from the denoiser).
_LIKED, _UNKNOWN = 1, 2


class Scorer(nn.Module):
    """Logits of single candidates, by `EarlyEntry` and `ScoredHead`; see there.

    Attributes:
      use: entry and place.
      width: hidden width of the head.
    """

    use: ScoreUse
    width: int

    @nn.compact
    def __call__(self, items: Array, scores: Array) -> Array:
        """Map `items [B, N, D]` and `scores [B, N]` to `float32 [B, N]`."""
        return ScoredHead(self.use, self.width)(EarlyEntry(self.use)(items, scores), scores)


class DCDR(nn.Module):
    """The module behind `dcdr`; see there for the attributes."""

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
        self.scorer = Scorer(self.scores, self.width)
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
        return self.scorer(memory[0], scores)

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

    def denoising_loss(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Add the scorer's binary cross-entropy and the denoiser's loss."""
        items = self._read(batch.request, drop=drop)
        judged = bce(self.scorer(items, batch.scores), batch.labels, batch.weights)
        return judged + self._step_loss(items, batch, drop=drop, key=key)

    def _read(self, request: Request, *, drop: Drop) -> Array:
        return self.fusion(*self.request_encoder(request, drop=drop), drop=drop)

    def _step_loss(self, items: Array, batch: Batch, *, drop: Drop, key: Array) -> Array:
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
        """Step back from `start`, all feedback liked: see `step_back`."""
        liked = jnp.full(start.shape, _LIKED)

        def denoise(lists: Array, step: int) -> Array:
            return self.denoiser(items, lists, liked, jnp.full(len(start), step), drop=identity)

        return step_back(self.process, denoise, start, where, total=len(self.betas), beam=self.beam)

    def visit(self, request: Request, scores: Array) -> None:
        """Touch every submodule, for `init`."""
        memory = self.encode(request, drop=identity)
        self.arrange(memory, scores, request.where)


def feedback_of(batch: Batch) -> Array:
    """Return the feedback of the shown list: `int32 [B, K]`, 0, 1, or 2 = not known."""
    judged = (batch.slate >= 0) & (take_items(batch.weights, batch.slate) > 0)
    liked = take_items(batch.labels, batch.slate) > 0.5
    return jnp.where(judged, liked.astype(jnp.int32), _UNKNOWN)


def dcdr(
    spec: FeatureSpec,
    *,
    width: int,
    slate_size: int,
    layers: int,
    heads: int,
    feed_forward: int,
    dropout: float,
    history_layers: int,
    variant: str,
    diffusion_steps: int,
    first_beta: float,
    last_beta: float,
    condition_dropout: float,
    beam: int,
    score_entry: str,
    score_place: str,
) -> Reranker:
    """Build DCDR-P or DCDR-T (Lin et al. 2024, arXiv 2308.06982).

    Args:
      spec: column names and vocabulary sizes.
      width: D, a multiple of `heads`.
      slate_size: K >= 1, length of the lists.
      layers: transformer blocks of the denoiser and of the evaluator, >= 1.
      heads: attention heads.
      feed_forward: hidden width of each block's FFN.
      dropout: rate in [0, 1).
      history_layers: transformer blocks over the history, >= 1.
      variant: "permutation" (P: a step swaps two candidates) or "token" (T: it replaces some).
      diffusion_steps: T >= 1, steps of the noise and of its reversal.
      first_beta: beta_1; beta grows linearly to beta_T.
      last_beta: beta_T, with 0 < `first_beta` <= `last_beta` < 1.
      condition_dropout: share in [0, 1) of training requests whose feedback the denoiser does not
        see.
      beam: W >= 1, lists kept at every step of the reversal.
      score_entry: "none", "concatenate", "add" or "weight", for the scorer; the denoiser reads no
        scores. See `nn.score_entry`.
      score_place: "late" (non-linear head), "late_linear" or "early".

    Raises:
      ValueError: a size, rate or name is outside its range.
    """
    check_heads(width, heads)
    check_positive(slate_size=slate_size, layers=layers, history_layers=history_layers)
    check_positive(feed_forward=feed_forward, diffusion_steps=diffusion_steps, beam=beam)
    check_rate(condition_dropout)
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} is unknown: choose one of {tuple(VARIANTS)}")
    if not 0 < first_beta <= last_beta < 1:
        raise ValueError(f"betas {first_beta} to {last_beta} must rise within (0, 1)")
    betas = tuple(np.linspace(first_beta, last_beta, diffusion_steps).tolist())
    sizes = (width, slate_size, layers, heads, feed_forward, history_layers)
    use = ScoreUse(score_entry, score_place)
    module = DCDR(spec, *sizes, betas, condition_dropout, beam, VARIANTS[variant], use)
    judge = module_loss(module, DCDR.evaluator_loss, dropout=dropout)
    loss = module_loss(module, DCDR.denoising_loss, dropout=dropout)
    own = ("request_encoder", "fusion", "scorer", "denoiser")
    return wrap(module, dropout=dropout, visit=DCDR.visit)._replace(
        arrange=arranging(module, DCDR.arrange),
        stages=(Stage("evaluator", judge, ("evaluator",), 0.5), Stage("train", loss, own)),
        needs_slate=True,
    )
