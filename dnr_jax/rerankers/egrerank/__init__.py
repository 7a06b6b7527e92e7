"""EGRerank: a pointer policy that maximises a learned evaluator of lists by PPO.

Huzhang et al. 2020, arXiv 2003.00955. The evaluator is trained on shown lists and frozen; then the
generator draws `samples` lists per request. Its reward at place k is the evaluator's click
probability. EG-Rerank+ adds `realism * -log(1 - D_k)`, where D_k is a discriminator's probability
that the item at place k is from a logged list. With the return `G_k = r_k + gamma G_{k+1}` and
`A = (G - mean) / std` over a request's samples, separately per place, the generator minimises the
mean over places of `-min(rho A, clip(rho, 1 - c, 1 + c) A) - w H`, where H is the entropy of the
choice. In the same steps the discriminator learns to distinguish logged lists from samples.

As in the public code LibRerank there is one inner step: every step draws new lists with the
current parameters. So the old probabilities are those of the same pass, held fixed, and no old
parameters are kept; rho is 1, the clip is never active, and the gradient is that of REINFORCE. The
clip would only act with a second step on the same lists.

gamma, c and w are LibRerank's; no source gives `realism`. Deviations: evaluator and discriminator
are `ListEvaluator` in place of a GRU; the fused states h replace the item MLP, and `Pointer` the
generator; lists have K places and the greedy one is shown, whereas LibRerank samples all N places.
Samples get the empty places of the logged list before the discriminator sees them, as these places
would give the logged list away (a shown item need not be a candidate). The scorer is the policy's
first choice: DNR and the binary cross-entropy train it, and it orders the items outside the list.

The evaluator cannot judge items that it never saw. Where few candidates were shown, the policy
learns lists that please the evaluator but not the user.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import Lesson
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.list_evaluator import ListEvaluator, generator_evaluator, judge
from dnr_jax.nn.policy_gradient import clipped_gain, discounted_returns, standardise
from dnr_jax.nn.slates import score_list
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.rerankers.egrerank.pointer import Pointer, Rollout
from dnr_jax.settings import knob
from dnr_jax.types import Array, Batch, FeatureSpec, Request, Reranker, Task

GAMMA = 0.01
CLIP = 0.1
ENTROPY = 0.001


@dataclass(frozen=True, kw_only=True)
class EGRerankSettings(Trunk):
    """Knobs of EGRerank; evaluator and discriminator have `layers` blocks each."""

    samples: int = knob(5, "lists per request that are drawn and compared by reward", at_least=2)
    realism: float = knob(
        10.0, "reward of lists like logged ones; 0 = EG-Rerank, no discriminator", at_least=0
    )


class EGRerank(nn.Module):
    """The module behind `egrerank`."""

    spec: FeatureSpec
    settings: EGRerankSettings
    slate_size: int

    def setup(self) -> None:
        """Make generator, evaluator and discriminator, which share no parameters."""
        settings = self.settings
        self.request_encoder = RequestEncoder(self.spec, settings)
        self.fusion = Fusion(settings.width)
        self.pointer = Pointer(settings.scores, settings.width)
        self.evaluator = ListEvaluator(self.spec, settings, self.slate_size)
        if settings.realism > 0:
            self.discriminator = ListEvaluator(self.spec, settings, self.slate_size)

    def encode(self, request: Request, *, drop: Drop) -> Array:
        """Return the candidate states h `[B, N, D]`."""
        return self.fusion(*self.request_encoder(request, drop=drop), drop=drop)

    def decode(self, memory: Array, scores: Array, where: Array, *, drop: Drop) -> Array:
        """Return the logits `[B, N]` of the policy's first choice."""
        return self.pointer.first(memory, scores, drop=drop)

    def arrange(self, memory: Array, scores: Array, where: Array) -> Array:
        """Put the greedy list first, then the rest by the logits of the first choice."""
        quiet = jnp.zeros((where.shape[0], 1, self.slate_size, where.shape[1]))
        greedy = self.pointer.unroll(memory, scores, where, quiet, drop=identity)
        logits = self.pointer.first(memory, scores, drop=identity)
        return score_list(greedy.lists[:, 0], logits, where)

    def run_all(self, request: Request, scores: Array) -> Array:
        """Run everything once, so that `init` makes all parameters."""
        order = self.arrange(self.encode(request, drop=identity), scores, request.where)
        lists = jnp.zeros((scores.shape[0], 1, self.slate_size), jnp.int32)
        judge(self.evaluator, request, lists)
        if self.settings.realism > 0:
            judge(self.discriminator, request, lists)
        return order

    def teach_policy(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the generator's plus the discriminator's loss; each trains only its own part."""
        drawn = self.draw(batch, drop=drop, key=key)
        rewards = jax.nn.sigmoid(judge(self.evaluator, batch.request, drawn.lists))
        if not self.settings.realism > 0:
            return policy_loss(drawn, rewards)
        holes = batch.slate[:, None] < 0
        lists = jnp.concatenate([batch.slate[:, None], jnp.where(holes, -1, drawn.lists)], axis=1)
        # Without dropout: its rewards stay exact, and it learns from new samples at every step.
        logits = judge(self.discriminator, batch.request, lists)
        # -log(1 - D), at any logit.
        real = jnp.where(lists[:, 1:] >= 0, jax.nn.softplus(logits[:, 1:]), 0.0)
        rewards = rewards + self.settings.realism * real
        return policy_loss(drawn, rewards) + tell_apart(logits, lists)

    def draw(self, batch: Batch, *, drop: Drop, key: Array) -> Rollout:
        """Draw the samples of each request from the policy."""
        where = batch.request.where
        shape = (self.settings.samples, self.slate_size, where.shape[1])
        keys = ops.per_request_keys(key, batch.request.index)
        noise = jax.vmap(lambda one: jax.random.gumbel(one, shape))(keys)
        memory = self.encode(batch.request, drop=drop)
        return self.pointer.unroll(memory, batch.scores, where, noise, drop=drop)


def policy_loss(drawn: Rollout, rewards: Array) -> Array:
    """Compute the mean of `-gain - w H` over all places of samples, for rewards `[B, S, K]`."""
    real = drawn.lists >= 0
    returns = discounted_returns(jnp.where(real, rewards, 0.0), GAMMA)
    advantages = standardise(returns, ddof=0)
    # Drawn in this same pass, so the old probabilities are the new ones.
    new = drawn.log_probabilities
    gain = clipped_gain(new, new, advantages, clip=CLIP)
    return ops.weighted_mean(-gain - ENTROPY * drawn.entropies, real)


def tell_apart(logits: Array, lists: Array) -> Array:
    """Compute the cross-entropy of "is logged"; logged and drawn lists have equal total weight.

    Args:
      logits: `float32 [B, 1 + S, K]`.
      lists: `int32 [B, 1 + S, K]`, the logged list first; empty places do not count.
    """
    real = lists >= 0
    logged = ops.weighted_mean(jax.nn.softplus(-logits[:, :1]), real[:, :1])
    drawn = ops.weighted_mean(jax.nn.softplus(logits[:, 1:]), real[:, 1:])
    return (logged + drawn) / 2


def egrerank(task: Task, settings: EGRerankSettings) -> Reranker:
    """Build EGRerank (Huzhang et al. 2020, arXiv 2003.00955): evaluator first, then generator."""
    judges = ("discriminator",) if settings.realism > 0 else ()
    return generator_evaluator(
        EGRerank(task.spec, settings, task.slate_size),
        Lesson("policy", EGRerank.teach_policy, ("request_encoder", "fusion", "pointer", *judges)),
        dropout=settings.dropout,
        run_all=EGRerank.run_all,
        arrange=EGRerank.arrange,
    )
