"""IRGAN: a generator draws candidates, a discriminator tells them from what the user liked.

Wang et al. 2017, arXiv 1705.10513. The generator is `p_theta(i | u) = softmax(g)_i`, the
discriminator gives logits f; each is a pointwise network with its own embeddings. Both are
pre-trained, then they play, with i drawn from the generator:

    L_D = mean over positives and draws of  -log sigmoid(f_pos)  and  -log(1 - sigmoid(f_i))
    L_G = -mean (r_i - mean r) log p_theta(i),   r_i = 2 sigmoid(f_i) - 1   (REINFORCE)

The model is only IRGAN-style, as the paper's text was not available. Our choices: the reward is
bounded (the paper's is `log(1 + e^f)`), and its baseline is the mean over the batch. The draws for
L_D are sharpened by a temperature and are never positives. Both players move in every step (by
L_D + L_G, with each term fixed for the other player), whereas the paper alternates epochs. Unjudged
candidates are not drawn.

The game is unstable on 50 candidates. A discriminator that sees only the generator's favourites
forgets how to order the others. On MovieLens-100K the generator lost part of what it had learned
in pre-training, at every learning rate tried (the best epoch on validation is kept).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import Lesson, taught
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.losses import bce, softmax_cross_entropy
from dnr_jax.nn.pointwise import PointwiseScorer
from dnr_jax.nn.trunk import Trunk
from dnr_jax.settings import knob
from dnr_jax.types import Array, Batch, FeatureSpec, Request, Reranker, Task

PLAYERS = ("generator", "discriminator")


@dataclass(frozen=True, kw_only=True)
class IRGANSettings(Trunk):
    """Knobs of IRGAN; both players use the shared ones, except `layers`, which is not used."""

    draws: int = knob(8, "C, candidates drawn per request, for each player", at_least=1)
    draw_temperature: float = knob(
        0.2, "divides g where negatives are drawn; below 1 draws harder ones", above=0
    )
    ranked_by: str = knob("generator", "the player whose logits rank", one_of=PLAYERS)


class IRGAN(nn.Module):
    """The module behind `irgan`."""

    spec: FeatureSpec
    settings: IRGANSettings

    def setup(self) -> None:
        """Make the two players, which share no parameters."""
        self.generator = PointwiseScorer(self.spec, self.settings)
        self.discriminator = PointwiseScorer(self.spec, self.settings)

    @property
    def _ranker(self) -> PointwiseScorer:
        return self.generator if self.settings.ranked_by == "generator" else self.discriminator

    def encode(self, request: Request, *, drop: Drop) -> Array:
        """Return the candidate states `[B, N, D]` of the player that ranks."""
        return self._ranker.encode(request, drop=drop)

    def decode(self, memory: Array, scores: Array, where: Array, *, drop: Drop) -> Array:
        """Return the logits `[B, N]` of the player that ranks."""
        return self._ranker.decode(memory, scores, where, drop=drop)

    def run_all(self, request: Request, scores: Array) -> tuple[Array, Array]:
        """Run both players once, so that `init` makes all parameters."""
        generated = self.generator(request, scores, drop=identity)
        return generated, self.discriminator(request, scores, drop=identity)

    def teach_discriminator(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the binary cross-entropy of f: the discriminator's pre-training."""
        logits = self.discriminator(batch.request, batch.scores, drop=drop)
        return bce(logits, batch.labels, batch.weights)

    def teach_generator(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the softmax cross-entropy of g: the generator's pre-training."""
        logits = self.generator(batch.request, batch.scores, drop=drop)
        return softmax_cross_entropy(logits, batch.labels, batch.weights)

    def play(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute L_D + L_G; each term trains only one player."""
        generated = self.generator(batch.request, batch.scores, drop=drop)
        judged = self.discriminator(batch.request, batch.scores, drop=drop)
        fake_key, own_key = jax.random.split(key)
        real, index, count = batch.weights > 0, batch.request.index, self.settings.draws
        fakes = draw(
            ops.per_request_keys(fake_key, index),
            generated / self.settings.draw_temperature,
            real & (batch.labels == 0),
            count=count,
        )
        own = draw(ops.per_request_keys(own_key, index), generated, real, count=count)
        rewards = 2 * jax.nn.sigmoid(jnp.take_along_axis(judged, own, axis=1)) - 1
        return discriminator_loss(judged, batch, fakes) + generator_loss(
            generated, real, own, rewards
        )


def draw(keys: Array, logits: Array, where: Array, *, count: int) -> Array:
    """Draw `count` real candidates per request from softmax(logits), with repeats: `int32 [B, C]`.

    Args:
      keys: typed keys `[B]`.
      logits: `float32 [B, N]`; no gradient passes.
      where: `bool [B, N]`; without a real candidate the result is meaningless.
      count: C.
    """

    def one(key: Array, row: Array) -> Array:
        return jax.random.categorical(key, row, shape=(count,))

    return jax.vmap(one)(keys, jax.lax.stop_gradient(ops.mask_logits(logits, where)))


def discriminator_loss(judged: Array, batch: Batch, fakes: Array) -> Array:
    """Compute L_D; a request's draws together weigh as much as its positives.

    Args:
      judged: f, `float32 [B, N]`.
      batch: labels and weights.
      fakes: `int32 [B, C]`, drawn negatives; they do not count if the request has no negative.
    """
    gains = batch.labels * batch.weights
    possible = ((batch.labels == 0) & (batch.weights > 0)).any(axis=1)
    share = gains.sum(axis=1) * possible / fakes.shape[1]
    drawn = jnp.take_along_axis(judged, fakes, axis=1)
    return bce(
        jnp.concatenate([judged, drawn], axis=1),
        jnp.concatenate([jnp.ones_like(judged), jnp.zeros_like(drawn)], axis=1),
        jnp.concatenate([gains, jnp.broadcast_to(share[:, None], drawn.shape)], axis=1),
    )


def generator_loss(generated: Array, where: Array, own: Array, rewards: Array) -> Array:
    """Compute L_G; its expected gradient is that of `-sum_i p_theta(i) r_i`.

    Args:
      generated: g, `float32 [B, N]`.
      where: `bool [B, N]`, candidates that could be drawn; a request without any does not count.
      own: `int32 [B, C]`, drawn from softmax(g).
      rewards: r, `float32 [B, C]`; no gradient passes.
    """
    likely = jnp.take_along_axis(ops.masked_log_softmax(generated, where), own, axis=1)
    counted = jnp.broadcast_to(where.any(axis=1, keepdims=True), own.shape)
    fixed = jax.lax.stop_gradient(rewards)
    gains = fixed - ops.weighted_mean(fixed, counted)
    return ops.weighted_mean(-gains * likely, counted)


def irgan(task: Task, settings: IRGANSettings) -> Reranker:
    """Build IRGAN (Wang et al. 2017, arXiv 1705.10513): each player alone first, then the game.

    As a scorer it is the player chosen by `ranked_by`.
    """
    return taught(
        IRGAN(task.spec, settings),
        Lesson("discriminator", IRGAN.teach_discriminator, ("discriminator",), share=0.5),
        Lesson("generator", IRGAN.teach_generator, ("generator",), share=0.5),
        Lesson("game", IRGAN.play),
        dropout=settings.dropout,
        run_all=IRGAN.run_all,
        log_odds=settings.ranked_by == "discriminator",
    )
