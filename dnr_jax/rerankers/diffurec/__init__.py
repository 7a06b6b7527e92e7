"""DiffuRec: diffuses the embedding of the target, and denoises it given the user's history.

Li et al. 2023, arXiv 2304.00686, and its public code. With x_0 the embedding of a positive,

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps,   xhat_0 = f(LN(e_l) + lambda_l * (x_t + s_t))

where e_l are the events, s_t embeds the step and every element of lambda is drawn from
N(delta, delta^2), in evaluation too. To rank, x_T ~ N(0, I) is denoised step by step,
`x_{t-1} = c1 xhat_0 + c2 x_t + sqrt(beta_t) eps`; at the last step it is xhat_0 itself.

Deviations: the N candidates of a request replace the catalogue; x_0 is `sqrt(D) e_i`, on the scale
of the noise; padded events are not attended to (the code masks queries); an empty history gives 0;
steps are drawn uniformly (as the code does). A request's draws are fixed and the mean of several
samples ranks, so its logits are deterministic. Scores enter through `ProductHead`. At the paper's
delta of 0.001 the draws hardly matter: other draws, or 4 reverse steps in place of 32, change the
logits of a trained model by a thousandth of their spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import Lesson, taught
from dnr_jax.nn.dropout import Drop, grouped
from dnr_jax.nn.embeddings import FeatureEmbedding
from dnr_jax.nn.layers import LayerNorm
from dnr_jax.nn.losses import softmax_cross_entropy
from dnr_jax.nn.score_entry import ProductHead
from dnr_jax.nn.trunk import Trunk
from dnr_jax.rerankers.diffurec.diffusion import HistoryDiffusion, diffuse, draw_noise
from dnr_jax.settings import knob
from dnr_jax.types import Array, Batch, FeatureSpec, Request, Reranker, Task

# The reverse process draws from this key and the request's number.
REVERSE_SEED = 2304


@dataclass(frozen=True, kw_only=True)
class DiffuRecSettings(Trunk):
    """Knobs of DiffuRec.

    The approximator has `history_layers` blocks (4 in the paper) with a hidden width of
    `feed_forward` (4 D). The paper scores with one sample that takes all reverse steps.
    """

    diffusion_steps: int = knob(32, "T, steps from the target's embedding to noise", at_least=1)
    reverse_steps: int = knob(
        4, "steps back that score a request, up to T; fewer skip steps evenly", at_least=1
    )
    reverse_samples: int = knob(4, "number of reverse samples that are averaged", at_least=1)
    uncertainty: float = knob(
        0.001, "delta, mean and spread of lambda, the share of x_t", at_least=0
    )

    def check(self) -> None:
        """Refuse more reverse steps than there are steps."""
        super().check()
        if self.reverse_steps > self.diffusion_steps:
            raise ValueError(
                f"reverse_steps is {self.reverse_steps}: it must be at most diffusion_steps, "
                f"{self.diffusion_steps}"
            )


class DiffuRec(nn.Module):
    """The module behind `diffurec`.

    Training through the logits (`bce`, DNR) differentiates the last step of the reverse process.
    """

    spec: FeatureSpec
    settings: DiffuRecSettings

    def setup(self) -> None:
        """Make the blocks, in the order in which they run."""
        settings = self.settings
        self.embedding = FeatureEmbedding(self.spec, settings.width)
        self.event_norm = LayerNorm()
        self.diffusion = HistoryDiffusion(
            settings, settings.diffusion_steps, settings.reverse_steps, settings.uncertainty
        )
        self.head = ProductHead(settings.scores, settings.width)

    def encode(self, request: Request, *, drop: Drop) -> tuple[Array, Array]:
        """Return the mean of the samples `[B, D]` and the candidates' embeddings `[B, N, D]`."""
        (events, items), count = self._read(request, drop=drop), self.settings.reverse_samples
        keys = ops.per_request_keys(jax.random.key(REVERSE_SEED), request.index)
        keys = jax.vmap(lambda key: jax.random.split(key, count))(keys).reshape(-1)
        both = (events, request.history_where)
        events, where = (jnp.repeat(a, count, axis=0) for a in both)
        samples = self.diffusion.sample(keys, events, where, drop=grouped(drop, count))
        return samples.reshape(-1, count, self.settings.width).mean(axis=1), items

    def decode(
        self, memory: tuple[Array, Array], scores: Array, where: Array, *, drop: Drop
    ) -> Array:
        """Return the logits `[B, N]`: the mean sample times e_i, and x as `ProductHead` has it."""
        return self.head(*memory, scores)

    def denoising_loss(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the cross-entropy of xhat_0's logits, where x_0 is a random positive."""
        request = batch.request
        events, items = self._read(request, drop=drop)
        gains, keys = batch.labels * batch.weights, ops.per_request_keys(key, request.index)
        chosen, steps, noise = jax.vmap(self._draw)(keys, gains, events)
        picked = jnp.take_along_axis(items, chosen[:, None, None], axis=1)
        start = jnp.sqrt(self.settings.width) * picked
        kept = jnp.asarray(self.diffusion.schedule(self.settings.diffusion_steps).kept)[steps]
        noisy = diffuse(start[:, 0], noise[:, 0], kept)
        where = request.history_where
        sample = self.diffusion.predict(noisy, steps, events, where, noise, drop=drop)
        logits = self.head(sample, items, batch.scores)
        return softmax_cross_entropy(logits, batch.labels, batch.weights)

    def _read(self, request: Request, *, drop: Drop) -> tuple[Array, Array]:
        """Return the events `[B, T, D]` and the candidates `[B, N, D]`."""
        parts = self.embedding(request)
        return self.event_norm(drop(parts.history_items + parts.history_events)), parts.items

    def _draw(self, key: Array, gains: Array, events: Array) -> tuple[Array, Array, Array]:
        """Draw a positive, a step, and the noise of a call for one request."""
        which, when, how = jax.random.split(key, 3)
        step = jax.random.randint(when, (), 0, self.settings.diffusion_steps)
        return draw_positive(which, gains), step, draw_noise(how, events)


def draw_positive(key: Array, gains: Array) -> Array:
    """Draw an index with probability proportional to `gains` `[N]` >= 0; any one if all are 0."""
    return jax.random.categorical(key, jnp.log(jnp.maximum(gains, 1e-30)))


def diffurec(task: Task, settings: DiffuRecSettings) -> Reranker:
    """Build DiffuRec (Li et al. 2023, arXiv 2304.00686), trained by its cross-entropy of xhat_0.

    Requests without a positive do not count in that loss, which trains the score head as well.
    """
    return taught(
        DiffuRec(task.spec, settings),
        Lesson("train", DiffuRec.denoising_loss),
        dropout=settings.dropout,
        log_odds=False,
    )
