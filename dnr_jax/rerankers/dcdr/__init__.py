"""DCDR-style: discrete conditional diffusion of lists, DCDR-P (swaps) and DCDR-T (tokens).

Lin et al. 2024, arXiv 2308.06982. R_0 is the shown list and its feedback c the condition; noise
leads to R_t (`noise`), and the denoiser p(R_{t-1} | R_t, c, t) minimises

    P:  -log p(R_{t-1} | R_t, c, t), the chain being drawn,
    T:  -mean_k sum_a q(a_{t-1} = a | a_t, a_0) log p(a_{t-1} = a | R_t, c, t), slot by slot,

either one the KL divergence from the posterior plus a constant (P: in expectation). To rerank, c is
all ones, a beam of lists steps back T times, and a list evaluator picks the best list seen.

"-style", as the paper's text was not at hand: schedule, number of steps, encoding of the condition
and form of the denoiser are ours. So are these: the state is the shown list alone, as the order
behind it is never shown; the start is the order of a pointwise scorer, which is trained beside the
denoiser and stands for the ranker before (DNR and the binary cross-entropy train it alone); all
steps are run, as lists seen after the best one cost time only; T builds lists without repeats.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import arranging, module_loss, wrap
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.list_evaluator import ListEvaluator, evaluator_loss, list_value
from dnr_jax.nn.lists import score_list, take_items, top_list
from dnr_jax.nn.losses import bce
from dnr_jax.nn.matching import keep_best
from dnr_jax.nn.mlp import MLP
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead, ScoreUse
from dnr_jax.nn.sizes import check_heads, check_positive
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.rerankers.dcdr.denoiser import (
    LIKED,
    PERMUTATION,
    TOKEN,
    UNKNOWN,
    ListDiffusion,
    Process,
)
from dnr_jax.types import Array, Batch, FeatureSpec, Request, Reranker, Stage

LIST_NOISES = {"permutation": PERMUTATION, "token": TOKEN}


class Scorer(nn.Module):
    """Judge single candidates: an MLP on h, with x where `use` says so.

    Attributes:
      use: entry and place.
      width: D.
    """

    use: ScoreUse
    width: int

    @nn.compact
    def __call__(self, items: Array, scores: Array, *, drop: Drop) -> Array:
        """Map `items [B, N, D]` and `scores [B, N]` to `float32 [B, N]`."""
        tokens = EarlyEntry(self.use)(items, scores)
        hidden = MLP((self.width,), self.width)(tokens, drop=drop)
        return ScoredHead(self.use, self.width)(hidden, scores)


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
        sizes = (self.layers, self.heads, self.feed_forward)
        self.request_encoder = RequestEncoder(
            self.spec, self.width, self.history_layers, self.heads, self.feed_forward
        )
        self.fusion = Fusion(self.width)
        self.scorer = Scorer(self.scores, self.width)
        self.diffusion = ListDiffusion(
            self.process, self.betas, self.condition_dropout, self.beam, *sizes
        )
        self.evaluator = ListEvaluator(
            self.spec, self.width, self.slate_size, *sizes, self.history_layers
        )

    def encode(self, request: Request, *, drop: Drop) -> tuple[Array, Array]:
        """Return the candidate states h, and those of the evaluator, `[B, N, D]` each."""
        return self._read(request, drop=drop), self.evaluator.read(request, drop=drop)

    def decode(
        self, memory: tuple[Array, Array], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the scorer's logits `[B, N]`."""
        return self.scorer(memory[0], scores, drop=drop)

    def arrange(self, memory: tuple[Array, Array], scores: Array, where: Array) -> Array:
        """Order the candidates by the best list seen on the way back, the rest by their logits."""
        logits = self.decode(memory, scores, where, drop=identity)
        start = top_list(logits, where, self.slate_size)
        seen, real = self.diffusion.search(memory[0], where, start)
        values = list_value(self.evaluator(memory[1], seen, drop=identity), seen)
        return score_list(keep_best(seen, jnp.where(real, values, -1.0)), logits, where)

    def teach_evaluator(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the loss of the first stage."""
        return evaluator_loss(self.evaluator, batch, drop=drop)

    def teach_denoiser(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Add the denoiser's loss and the scorer's binary cross-entropy: the second stage."""
        items, where = self._read(batch.request, drop=drop), batch.request.where
        judged = bce(self.scorer(items, batch.scores, drop=drop), batch.labels, batch.weights)
        keys = ops.per_request_keys(key, batch.request.index)
        shown = jnp.where(take_items(where, batch.slate), batch.slate, -1)
        return judged + self.diffusion.loss(
            keys, items, where, shown, feedback_of(batch), drop=drop
        )

    def _read(self, request: Request, *, drop: Drop) -> Array:
        return self.fusion(*self.request_encoder(request, drop=drop), drop=drop)

    def visit(self, request: Request, scores: Array) -> Array:
        """Touch every submodule, for `init`."""
        return self.arrange(self.encode(request, drop=identity), scores, request.where)


def feedback_of(batch: Batch) -> Array:
    """Return the feedback of the shown list: `int32 [B, K]`, 0, `LIKED` or `UNKNOWN`."""
    judged = (batch.slate >= 0) & (take_items(batch.weights, batch.slate) > 0)
    liked = take_items(batch.labels, batch.slate) > 0.5
    return jnp.where(judged, jnp.where(liked, LIKED, 0), UNKNOWN)


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
    list_noise: str,
    noise_steps: int,
    first_beta: float,
    last_beta: float,
    condition_dropout: float,
    beam: int,
    score_entry: str,
    score_place: str,
) -> Reranker:
    """Build DCDR-P or DCDR-T (after Lin et al. 2024, arXiv 2308.06982).

    Args:
      spec: column names and vocabulary sizes.
      width: D, a multiple of `heads`.
      slate_size: K >= 1, length of the lists; the shown lists of the data have it too.
      layers: transformer blocks of the denoiser and of the evaluator, >= 1.
      heads: attention heads.
      feed_forward: hidden width of each block's FFN.
      dropout: rate in [0, 1).
      history_layers: transformer blocks over the history, >= 1.
      list_noise: "permutation" (P: a step swaps two candidates) or "token" (T: a step replaces
        some).
      noise_steps: T >= 1, steps of the noise and of its reversal.
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
    check_positive(feed_forward=feed_forward, noise_steps=noise_steps, beam=beam)
    if not 0 <= condition_dropout < 1:
        raise ValueError(f"condition_dropout {condition_dropout} is outside [0, 1)")
    if list_noise not in LIST_NOISES:
        raise ValueError(
            f"list noise {list_noise!r} is unknown: choose one of {tuple(LIST_NOISES)}"
        )
    if not 0 < first_beta <= last_beta < 1:
        raise ValueError(f"first_beta {first_beta}, last_beta {last_beta} must rise within (0, 1)")
    betas = tuple(np.linspace(first_beta, last_beta, noise_steps).tolist())
    sizes = (width, slate_size, layers, heads, feed_forward, history_layers)
    use = ScoreUse(score_entry, score_place)
    module = DCDR(spec, *sizes, betas, condition_dropout, beam, LIST_NOISES[list_noise], use)
    lessons = (DCDR.teach_evaluator, DCDR.teach_denoiser)
    first, second = (module_loss(module, lesson, dropout=dropout) for lesson in lessons)
    own = ("request_encoder", "fusion", "scorer", "diffusion")
    stages = (Stage("evaluator", first, ("evaluator",), 0.5), Stage("denoiser", second, own))
    shown = arranging(module, DCDR.arrange)
    scorer = wrap(module, dropout=dropout, visit=DCDR.visit)
    return scorer._replace(arrange=shown, stages=stages, needs_slate=True)
