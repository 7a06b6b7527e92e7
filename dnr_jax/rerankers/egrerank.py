"""EGRerank: a pointer policy that maximises a learned evaluator of lists by PPO.

Huzhang et al. 2020, arXiv 2003.00955. The evaluator is trained on shown lists and frozen; then the
generator draws `SAMPLES` lists a request. Its reward at place k is the evaluator's click
probability, for EG-Rerank+ with `c_d * -log(1 - D_k)` on top, D_k a discriminator's probability
that the item at place k is of a logged list. With the return `G_k = r_k + gamma G_{k+1}` and
`A = (G - mean) / std` over a request's samples, place by place, it minimises
`-min(rho A, clip(rho, 1 - c, 1 + c) A) - ENTROPY * H`.

Constants are those of the public code LibRerank. Deviations from it: evaluator and discriminator
are the shared `ListEvaluator` in place of a GRU, the fused states h stand for the item MLP, lists
have K places, and the order shown is greedy where LibRerank samples. One inner step, as there: rho
is 1 and the clip is never active. The weight c_d is not published.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import arranging, module_loss, wrap
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.list_evaluator import ListEvaluator, evaluator_loss
from dnr_jax.nn.lists import score_list, take_items
from dnr_jax.nn.losses import bce
from dnr_jax.nn.pointer import Pointer, Rollout
from dnr_jax.nn.score_entry import ScoreUse
from dnr_jax.nn.sizes import check_heads, check_positive
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.types import Array, Batch, FeatureSpec, Request, Reranker, Stage

SAMPLES = 5
GAMMA = 0.01
CLIP = 0.1
ENTROPY = 0.001
# Returns that differ by less are alike: dividing by their spread would only blow up rounding.
SPREAD = 1e-6


class EGRerank(nn.Module):
    """The module behind `egrerank`; see there for the attributes."""

    spec: FeatureSpec
    width: int
    slate_size: int
    layers: int
    heads: int
    feed_forward: int
    history_layers: int
    realism: float
    scores: ScoreUse

    def setup(self) -> None:
        """Make the generator, the evaluator, and the discriminator if there is one."""
        sizes = self.layers, self.heads, self.feed_forward, self.history_layers
        self.request_encoder = RequestEncoder(
            self.spec, self.width, self.history_layers, self.heads, self.feed_forward
        )
        self.fusion = Fusion(self.width)
        self.pointer = Pointer(self.scores, self.width)
        self.evaluator = ListEvaluator(self.spec, self.width, self.slate_size, *sizes)
        if self.realism:
            self.discriminator = ListEvaluator(self.spec, self.width, self.slate_size, *sizes)

    def encode(self, request: Request, *, drop: Drop) -> Array:
        """Return the candidate states h `[B, N, D]`."""
        return self.fusion(*self.request_encoder(request, drop=drop), drop=drop)

    def decode(self, memory: Array, scores: Array, where: Array, *, drop: Drop) -> Array:
        """Return the logits of the policy's first choice, `[B, N]`."""
        return self.pointer.first(memory, scores, drop=drop)

    def arrange(self, memory: Array, scores: Array, where: Array) -> Array:
        """Return the order of the greedy list, `[B, N]`."""
        greedy = jnp.zeros((len(scores), 1, self.slate_size, scores.shape[1]))
        lists = self.pointer.unroll(memory, scores, where, greedy, drop=identity).lists[:, 0]
        return score_list(lists, self.pointer.first(memory, scores, drop=identity), where)

    def visit(self, request: Request, scores: Array) -> None:
        """Touch every block."""
        self.decode(self.encode(request, drop=identity), scores, request.where, drop=identity)
        lists = jnp.zeros((len(scores), 1, self.slate_size), jnp.int32)
        for judge in [self.evaluator] + ([self.discriminator] if self.realism else []):
            judge(judge.read(request, drop=identity), lists, drop=identity)

    def evaluator_loss(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Return the evaluator's cross-entropy on the shown lists."""
        return evaluator_loss(self.evaluator, batch, drop=drop)

    def policy_loss(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Return the generator's loss plus the discriminator's; neither reaches the other."""
        drawn = self.sample(batch, drop=drop, key=key)
        items = self.evaluator.read(batch.request, drop=identity)
        rewards = jax.nn.sigmoid(self.evaluator(items, drawn.lists, drop=identity))
        if not self.realism:
            return policy_loss(drawn, rewards)
        logged, generated = self._tell_apart(batch, drawn.lists, drop=drop)
        rewards += self.realism * jax.nn.softplus(generated)  # -log(1 - D)
        return policy_loss(drawn, rewards) + real_or_not(batch, drawn.lists, logged, generated)

    def sample(self, batch: Batch, *, drop: Drop, key: Array) -> Rollout:
        """Draw `SAMPLES` lists a request from the policy."""
        request, size = batch.request, (SAMPLES, self.slate_size, batch.scores.shape[1])
        keys = ops.per_request_keys(key, request.index)
        noise = jax.vmap(lambda one: jax.random.gumbel(one, size))(keys)
        tokens = self.encode(request, drop=drop)
        return self.pointer.unroll(tokens, batch.scores, request.where, noise, drop=drop)

    def _tell_apart(self, batch: Batch, lists: Array, *, drop: Drop) -> tuple[Array, Array]:
        """Return the discriminator's logits of the logged list and of `lists`."""
        items = self.discriminator.read(batch.request, drop=drop)
        both = jnp.concatenate([batch.slate[:, None], lists], axis=1)
        logits = self.discriminator(items, both, drop=drop)
        return logits[:, :1], logits[:, 1:]


def advantages(rewards: Array, gamma: float) -> Array:
    """Normalise returns over a request's lists: `(G - mean) / std` at every place, `[B, L, K]`.

    `G_k = r_k + gamma G_{k+1}`; lists whose returns are all alike have advantage 0.
    """
    later = gamma ** jnp.maximum(jnp.arange(rewards.shape[-1])[:, None], 0)
    returns = _discounted(rewards, gamma)
    del later
    spread = returns.std(axis=1, keepdims=True)
    centred = returns - returns.mean(axis=1, keepdims=True)
    return centred / jnp.where(spread > SPREAD, spread, 1.0)
