"""DCDR-style: discrete conditional diffusion of lists, DCDR-P (swaps) and DCDR-T (tokens).

Lin et al. 2024, arXiv 2308.06982. R_0 is the shown list, and its feedback c is the condition. Noise
turns R_0 into R_t (`noise`), and the denoiser p(R_{t-1} | R_t, c, t) minimises

    P:  -log p(R_{t-1} | R_t, c, t), for a random chain,
    T:  -mean_k sum_a q(a_{t-1} = a | a_t, a_0) log p(a_{t-1} = a | R_t, c, t), slot by slot,

Each is the KL divergence from the posterior plus a constant (P: in expectation). To rerank, c is
all ones, a beam of lists steps back T times, and a list evaluator picks the best list seen.

The model is only DCDR-style, as the paper's text was not available: schedule, number of steps,
encoding of the condition and form of the denoiser are ours. So are these choices. The state is only
the shown list, as the order behind it is never shown. The start is the order of a pointwise scorer,
which is trained together with the denoiser and takes the place of an upstream ranker (DNR and the
binary cross-entropy train only this scorer). All steps are run, as lists seen after the best one
only cost time. DCDR-T builds lists without repeats.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import Lesson
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.layers import MLP
from dnr_jax.nn.list_evaluator import ListEvaluator, generator_evaluator, list_value
from dnr_jax.nn.losses import bce
from dnr_jax.nn.score_entry import EarlyEntry, ScoredHead, ScoreUse
from dnr_jax.nn.slates import keep_best, score_list, take_items, top_list
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.rerankers.dcdr.denoiser import LIKED, PERMUTATION, TOKEN, UNKNOWN, ListDiffusion
from dnr_jax.settings import knob
from dnr_jax.types import Array, Batch, FeatureSpec, Request, Reranker, Task

LIST_NOISES = {"permutation": PERMUTATION, "token": TOKEN}


@dataclass(frozen=True, kw_only=True)
class DCDRSettings(Trunk):
    """Knobs of DCDR; denoiser and evaluator have `layers` blocks each.

    The score enters only the pointwise scorer, not the denoiser. The rates of the steps grow
    linearly from `first_beta` to `last_beta`.
    """

    list_noise: str = knob(
        "permutation",
        "permutation (a step swaps two, DCDR-P) | token (it replaces some, DCDR-T)",
        one_of=LIST_NOISES,
    )
    noise_steps: int = knob(5, "T, steps of the noise, and steps back from the start", at_least=1)
    first_beta: float = knob(0.1, "chance of a change at the first step", above=0, below=1)
    last_beta: float = knob(0.5, "chance of a change at the last step", above=0, below=1)
    condition_dropout: float = knob(
        0.1, "share of training lists whose feedback is hidden", at_least=0, below=1
    )
    beam: int = knob(4, "W, lists kept at most at every step back", at_least=1)

    def check(self) -> None:
        """Refuse decreasing rates."""
        super().check()
        if self.first_beta > self.last_beta:
            raise ValueError(
                f"first_beta is {self.first_beta}: it must be at most last_beta, {self.last_beta}"
            )

    @property
    def betas(self) -> tuple[float, ...]:
        """The rates beta_1..beta_T."""
        return tuple(np.linspace(self.first_beta, self.last_beta, self.noise_steps).tolist())


class CandidateScorer(nn.Module):
    """Score single candidates: an MLP on h, with x where `use` says so.

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
    """The module behind `dcdr`."""

    spec: FeatureSpec
    settings: DCDRSettings
    slate_size: int

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        settings = self.settings
        self.request_encoder = RequestEncoder(self.spec, settings)
        self.fusion = Fusion(settings.width)
        self.scorer = CandidateScorer(settings.scores, settings.width)
        self.diffusion = ListDiffusion(
            LIST_NOISES[settings.list_noise],
            settings.betas,
            settings.condition_dropout,
            settings.beam,
            settings,
        )
        self.evaluator = ListEvaluator(self.spec, settings, self.slate_size)

    def encode(self, request: Request, *, drop: Drop) -> tuple[Array, Array]:
        """Return the candidate states h, and those of the evaluator, `[B, N, D]` each."""
        return self._read(request, drop=drop), self.evaluator.read(request, drop=drop)

    def decode(
        self, memory: tuple[Array, Array], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the scorer's logits `[B, N]`."""
        return self.scorer(memory[0], scores, drop=drop)

    def arrange(self, memory: tuple[Array, Array], scores: Array, where: Array) -> Array:
        """Put the best list of the reverse process first, then the rest by their logits."""
        logits = self.decode(memory, scores, where, drop=identity)
        start = top_list(logits, where, self.slate_size)
        seen, real = self.diffusion.search(memory[0], where, start)
        values = list_value(self.evaluator(memory[1], seen, drop=identity), seen)
        return score_list(keep_best(seen, jnp.where(real, values, -1.0)), logits, where)

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


def feedback_of(batch: Batch) -> Array:
    """Return the feedback of the shown list: `int32 [B, K]`, 0, `LIKED` or `UNKNOWN`."""
    judged = (batch.slate >= 0) & (take_items(batch.weights, batch.slate) > 0)
    liked = take_items(batch.labels, batch.slate) > 0.5
    return jnp.where(judged, jnp.where(liked, LIKED, 0), UNKNOWN)


def dcdr(task: Task, settings: DCDRSettings) -> Reranker:
    """Build DCDR-P or DCDR-T (after Lin et al. 2024, arXiv 2308.06982)."""
    own = ("request_encoder", "fusion", "scorer", "diffusion")
    return generator_evaluator(
        DCDR(task.spec, settings, task.slate_size),
        Lesson("denoiser", DCDR.teach_denoiser, own),
        dropout=settings.dropout,
        arrange=DCDR.arrange,
    )
