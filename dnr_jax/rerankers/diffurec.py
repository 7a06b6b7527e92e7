"""DiffuRec: diffuses the embedding of the target, and denoises it by what the user met before.

Li et al. 2023, arXiv 2304.00686, and its public code. The approximator reads the events as
`LN(e_l) + lambda_l * (x_t + s_t)`, s_t the step's embedding and every element of lambda drawn
from N(delta, delta^2), in evaluation too; pre-norm blocks; its last position is xhat_0.
Reverse steps: `x_{t-1} = c1 xhat_0 + c2 x_t + sqrt(beta_t) eps`, at the last one xhat_0 itself.

Ours: the N candidates of a request stand for the catalogue; x_0 is `sqrt(D) e_i`, on the scale of
the noise; padded events are not attended to (the code masks queries); an empty history gives 0;
drawing of steps is uniform (as the code runs); scores enter by `ProductHead`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import module_loss, wrap
from dnr_jax.nn.diffusion import (
    Approximator,
    Schedule,
    diffuse,
    make_schedule,
    truncated_linear,
)
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.embeddings import FeatureEmbedding
from dnr_jax.nn.losses import softmax_cross_entropy
from dnr_jax.nn.score_entry import ProductHead, ScoreUse
from dnr_jax.nn.sizes import check_heads, check_positive
from dnr_jax.types import Array, Batch, FeatureSpec, Request, Reranker, Stage

# The reverse process draws from this key and the request's number: a logit is no random number.
_REVERSE_SEED = 2304


class DiffuRec(nn.Module):
    """The module behind `diffurec`; see there for the attributes.

    `encode` runs the reverse process. All its steps but the last are constants for gradients, and
    without dropout, so that training through the logits (`bce`, DNR) differentiates one call of the
    approximator.
    """

    spec: FeatureSpec
    width: int
    history_layers: int
    heads: int
    feed_forward: int
    diffusion_steps: int
    reverse_steps: int
    uncertainty: float
    scores: ScoreUse

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        self.embedding = FeatureEmbedding(self.spec, self.width)
        self.event_norm = nn.LayerNorm()
        self.approximator = Approximator(
            self.history_layers, self.heads, self.feed_forward, self.diffusion_steps
        )
        self.head = ProductHead(self.scores, self.width)

    def encode(self, request: Request, *, drop: Drop) -> tuple[Array, Array]:
        """Return the final sample `[B, D]` and the candidates' embeddings `[B, N, D]`."""
        events, items = self._read(request, drop=drop)
        schedule = self._schedule(self.reverse_steps)
        keys = ops.per_request_keys(jax.random.key(_REVERSE_SEED), request.index)
        keys = jax.vmap(lambda key: jax.random.split(key, self.reverse_steps + 1))(keys)
        noisy = self._reverse(schedule, keys, events, request.history_where)
        mix = self._draw_mix(keys[:, 0], events)
        steps = jnp.full(len(events), schedule.steps[0])
        sample = self.approximator(noisy, steps, events, request.history_where, mix, drop=drop)
        return sample, items

    def decode(
        self, memory: tuple[Array, Array], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the logits `[B, N]`."""
        return self.head(*memory, scores)

    def denoising_loss(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the cross-entropy of xhat_0's logits, x_t being a noised sampled positive."""
        request = batch.request
        events, items = self._read(request, drop=drop)
        keys = ops.per_request_keys(key, request.index)
        keys = jax.vmap(lambda one: jax.random.split(one, 4))(keys)
        chosen = jax.vmap(draw_positive)(keys[:, 0], batch.labels * batch.weights)
        start = jnp.sqrt(self.width) * jnp.take_along_axis(items, chosen[:, None, None], axis=1)
        steps = jax.vmap(lambda one: jax.random.randint(one, (), 0, self.diffusion_steps))(
            keys[:, 1]
        )
        kept = jnp.asarray(self._schedule(self.diffusion_steps).kept)[steps]
        noisy = diffuse(start[:, 0], self._normal(keys[:, 2]), kept)
        mix = self._draw_mix(keys[:, 3], events)
        sample = self.approximator(noisy, steps, events, request.history_where, mix, drop=drop)
        logits = self.head(sample, items, batch.scores)
        return softmax_cross_entropy(logits, batch.labels, batch.weights)

    def _read(self, request: Request, *, drop: Drop) -> tuple[Array, Array]:
        """Return the events `[B, T, D]` and the candidates `[B, N, D]`."""
        parts = self.embedding(request)
        return self.event_norm(drop(parts.history_items + parts.history_events)), parts.items

    def _schedule(self, count: int) -> Schedule:
        return make_schedule(truncated_linear(self.diffusion_steps), count)

    def _normal(self, keys: Array) -> Array:
        return jax.vmap(lambda key: jax.random.normal(key, (self.width,)))(keys)

    def _draw_mix(self, keys: Array, events: Array) -> Array:
        """Draw lambda like `events` `[B, T, D]`."""
        noise = jax.vmap(lambda key: jax.random.normal(key, events.shape[1:]))(keys)
        return self.uncertainty * (1.0 + noise)

    def _reverse(self, schedule: Schedule, keys: Array, events: Array, where: Array) -> Array:
        """Run the reverse process from x_T ~ N(0, I) down to the last step's input, `[B, D]`."""

        def step(module: DiffuRec, noisy: Array, now: tuple) -> tuple[Array, None]:
            number, from_start, from_noisy, spread, key = now
            pair = jax.vmap(jax.random.split)(key)
            mix = module._draw_mix(pair[:, 0], events)
            steps = jnp.full(len(events), number)
            clean = module.approximator(noisy, steps, events, where, mix, drop=identity)
            return from_start * clean + from_noisy * noisy + spread * self._normal(pair[:, 1]), None

        backwards = (schedule.steps, schedule.from_start, schedule.from_noisy, schedule.spread)
        now = (*(jnp.asarray(a[:0:-1]) for a in backwards), keys[:, 2:].T)
        scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
        return jax.lax.stop_gradient(scan(self, self._normal(keys[:, 1]), now)[0])


def draw_positive(key: Array, gains: Array) -> Array:
    """Draw an index by `gains` `[N]` >= 0; any index where all of them are 0."""
    return jax.random.categorical(key, jnp.log(jnp.maximum(gains, 1e-30)))


def diffurec(
    spec: FeatureSpec,
    *,
    width: int,
    history_layers: int,
    heads: int,
    feed_forward: int,
    dropout: float,
    diffusion_steps: int,
    reverse_steps: int,
    uncertainty: float,
    score_entry: str,
    score_place: str,
) -> Reranker:
    """Build DiffuRec (Li et al. 2023, arXiv 2304.00686), trained by its cross-entropy of xhat_0.

    Requests without a positive drop out of that loss, which trains the score head as well.

    Args:
      spec: column names and vocabulary sizes.
      width: D, a multiple of `heads`.
      history_layers: blocks of the approximator, >= 1; 4 in the paper.
      heads: attention heads.
      feed_forward: hidden width of each block's FFN; 4 D in the paper.
      dropout: rate in [0, 1).
      diffusion_steps: T >= 1; 32 in the paper.
      reverse_steps: calls of the approximator for one set of logits, 1 to T; T in the paper, fewer
        skip steps evenly.
      uncertainty: delta >= 0, mean and standard deviation of lambda; 0.001 in the paper.
      score_entry: "none", "concatenate", "add" or "weight"; see `nn.score_entry.ProductHead`.
      score_place: "late" (non-linear head), "late_linear" or "early".

    Raises:
      ValueError: a size, rate or name is outside its range.
    """
    check_heads(width, heads)
    check_positive(
        history_layers=history_layers, feed_forward=feed_forward, diffusion_steps=diffusion_steps
    )
    if not 1 <= reverse_steps <= diffusion_steps:
        raise ValueError(
            f"reverse_steps {reverse_steps} are outside 1 to diffusion_steps {diffusion_steps}"
        )
    if uncertainty < 0:
        raise ValueError(f"uncertainty {uncertainty} is a standard deviation: make it at least 0")
    use = ScoreUse(score_entry, score_place)
    sizes = (width, history_layers, heads, feed_forward, diffusion_steps, reverse_steps)
    module = DiffuRec(spec, *sizes, uncertainty, use)
    loss = module_loss(module, DiffuRec.denoising_loss, dropout=dropout)
    return wrap(module, dropout=dropout)._replace(stages=(Stage("train", loss),))
