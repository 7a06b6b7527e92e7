"""EGRerank: a pointer policy that maximises a learned evaluator of lists by PPO.

Huzhang et al. 2020, arXiv 2003.00955. The evaluator is trained on shown lists and frozen; then the
generator draws `samples` lists a request. Its reward at place k is the evaluator's click
probability, for EG-Rerank+ with `realism * -log(1 - D_k)` on top, D_k a discriminator's probability
that the item at place k is of a logged list. With the return `G_k = r_k + gamma G_{k+1}` and
`A = (G - mean) / std` over a request's samples, place by place, it minimises the mean over places
of `-min(rho A, clip(rho, 1 - c, 1 + c) A) - w H`, H the entropy of the choice. The discriminator
learns to tell logged lists from samples in the same steps.

As in the public code LibRerank there is one inner step: every step draws new lists, by the very
parameters that learn. So the probabilities under the policy that drew are those of the same pass,
held fixed, and no old parameters are kept; rho is 1, the clip is never active, and the gradient is
that of REINFORCE. The clip would act from a second step on the same lists on.

gamma, c and w are LibRerank's; no source has `realism`. Deviations: evaluator and discriminator are
`ListEvaluator` in place of a GRU; the fused states h stand for the item MLP and `Pointer` for the
generator; lists have K places, and the greedy one is shown, where LibRerank samples all N places.
Also ours: samples are cut by the holes of the logged list before the discriminator compares them,
as holes alone would tell (a shown item need not be a candidate); and the scorer, which DNR and the
binary cross-entropy train and which orders what is not in the list, is the policy's first choice.

What the evaluator never saw it cannot judge: where the shown items are few among the candidates,
the policy learns lists that please the evaluator and not the user.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from dnr_jax import ops
from dnr_jax.nn.adapter import arranging, module_loss, wrap
from dnr_jax.nn.dropout import Drop, identity
from dnr_jax.nn.list_evaluator import ListEvaluator, evaluator_loss, judge
from dnr_jax.nn.lists import score_list
from dnr_jax.nn.policy_gradient import clipped_gain, discounted_returns, standardise
from dnr_jax.nn.score_entry import ScoreUse
from dnr_jax.nn.sizes import check_heads, check_positive
from dnr_jax.nn.user_state import Fusion, RequestEncoder
from dnr_jax.rerankers.egrerank.pointer import Pointer, Rollout
from dnr_jax.types import Array, Batch, FeatureSpec, Request, Reranker, Stage

GAMMA = 0.01
CLIP = 0.1
ENTROPY = 0.001


class EGRerank(nn.Module):
    """The module behind `egrerank`; see there for the attributes."""

    spec: FeatureSpec
    width: int
    layers: int
    heads: int
    feed_forward: int
    history_layers: int
    slate_size: int
    samples: int
    realism: float
    scores: ScoreUse

    def setup(self) -> None:
        """Make generator, evaluator and discriminator, which share no parameters."""
        self.request_encoder = RequestEncoder(
            self.spec, self.width, self.history_layers, self.heads, self.feed_forward
        )
        self.fusion = Fusion(self.width)
        self.pointer = Pointer(self.scores, self.width)
        sizes = (self.layers, self.heads, self.feed_forward, self.history_layers)
        self.evaluator = ListEvaluator(self.spec, self.width, self.slate_size, *sizes)
        if self.realism > 0:
            self.discriminator = ListEvaluator(self.spec, self.width, self.slate_size, *sizes)

    def encode(self, request: Request, *, drop: Drop) -> Array:
        """Return the candidate states h `[B, N, D]`."""
        return self.fusion(*self.request_encoder(request, drop=drop), drop=drop)

    def decode(self, memory: Array, scores: Array, where: Array, *, drop: Drop) -> Array:
        """Return the logits `[B, N]` of the policy's first choice."""
        return self.pointer.first(memory, scores, drop=drop)

    def arrange(self, memory: Array, scores: Array, where: Array) -> Array:
        """Order the candidates by the greedy list, the rest by the logits of the first choice."""
        quiet = jnp.zeros((where.shape[0], 1, self.slate_size, where.shape[1]))
        greedy = self.pointer.unroll(memory, scores, where, quiet, drop=identity)
        logits = self.pointer.first(memory, scores, drop=identity)
        return score_list(greedy.lists[:, 0], logits, where)

    def touch(self, request: Request, scores: Array) -> Array:
        """Run everything once, so that `init` makes all parameters."""
        order = self.arrange(self.encode(request, drop=identity), scores, request.where)
        lists = jnp.zeros((scores.shape[0], 1, self.slate_size), jnp.int32)
        judge(self.evaluator, request, lists)
        if self.realism > 0:
            judge(self.discriminator, request, lists)
        return order

    def teach_evaluator(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the loss of the first stage."""
        return evaluator_loss(self.evaluator, batch, drop=drop)

    def teach_policy(self, batch: Batch, *, drop: Drop, key: Array) -> Array:
        """Compute the generator's loss plus the discriminator's; neither reaches the other."""
        drawn = self.draw(batch, drop=drop, key=key)
        rewards = jax.nn.sigmoid(judge(self.evaluator, batch.request, drawn.lists))
        if not self.realism > 0:
            return policy_loss(drawn, rewards)
        holes = batch.slate[:, None] < 0
        lists = jnp.concatenate([batch.slate[:, None], jnp.where(holes, -1, drawn.lists)], axis=1)
        # Without dropout: it rewards as it stands, and has new samples to learn from at every step.
        logits = judge(self.discriminator, batch.request, lists)
        # -log(1 - D), at any logit.
        real = jnp.where(lists[:, 1:] >= 0, jax.nn.softplus(logits[:, 1:]), 0.0)
        return policy_loss(drawn, rewards + self.realism * real) + tell_apart(logits, lists)

    def draw(self, batch: Batch, *, drop: Drop, key: Array) -> Rollout:
        """Draw the samples of each request from the policy."""
        where, shape = batch.request.where, (self.samples, self.slate_size, batch.scores.shape[1])
        keys = ops.per_request_keys(key, batch.request.index)
        noise = jax.vmap(lambda one: jax.random.gumbel(one, shape))(keys)
        memory = self.encode(batch.request, drop=drop)
        return self.pointer.unroll(memory, batch.scores, where, noise, drop=drop)


def policy_loss(drawn: Rollout, rewards: Array) -> Array:
    """Compute the mean of `-gain - w H` over all places of samples, by rewards `[B, S, K]`."""
    real = drawn.lists >= 0
    returns = discounted_returns(jnp.where(real, rewards, 0.0), GAMMA)
    advantages = standardise(returns, ddof=0)
    # Drawn in this very pass: the old probabilities are the new ones.
    new = drawn.log_probabilities
    gain = clipped_gain(new, new, advantages, clip=CLIP)
    return ops.weighted_mean(-gain - ENTROPY * drawn.entropies, real)


def tell_apart(logits: Array, lists: Array) -> Array:
    """Compute the cross-entropy of "is logged", logged and drawn lists of equal total weight.

    Args:
      logits: `float32 [B, 1 + S, K]`.
      lists: `int32 [B, 1 + S, K]`, the logged list first; a place that is empty counts for nothing.
    """
    real = lists >= 0
    logged = ops.weighted_mean(jax.nn.softplus(-logits[:, :1]), real[:, :1])
    drawn = ops.weighted_mean(jax.nn.softplus(logits[:, 1:]), real[:, 1:])
    return (logged + drawn) / 2


def egrerank(
    spec: FeatureSpec,
    *,
    width: int,
    layers: int,
    heads: int,
    feed_forward: int,
    dropout: float,
    history_layers: int,
    slate_size: int,
    samples: int,
    realism: float,
    score_entry: str,
    score_place: str,
) -> Reranker:
    """Build EGRerank (Huzhang et al. 2020, arXiv 2003.00955): evaluator first, then generator.

    Args:
      spec: column names and vocabulary sizes.
      width: D, a multiple of `heads`, of states, LSTM and hidden layers.
      layers: blocks over the list in evaluator and discriminator, >= 1.
      heads: attention heads, everywhere.
      feed_forward: hidden width of each block's FFN.
      dropout: rate in [0, 1).
      history_layers: transformer blocks over the history, >= 1.
      slate_size: K, length of the lists, >= 1; the shown lists of the data have it too.
      samples: lists a request that the generator draws, >= 2, as their rewards are compared.
      realism: weight of the discriminator's reward, >= 0; 0 = EG-Rerank, which has none.
      score_entry: "none", "concatenate", "add" or "weight"; see `nn.score_entry`.
      score_place: "late" (non-linear head), "late_linear" or "early".

    Raises:
      ValueError: a size, rate, weight or name is outside its range.
    """
    check_heads(width, heads)
    check_positive(
        layers=layers,
        history_layers=history_layers,
        feed_forward=feed_forward,
        slate_size=slate_size,
    )
    if samples < 2:
        raise ValueError(f"samples {samples} must be at least 2: their rewards are compared")
    if not realism >= 0:
        raise ValueError(f"realism {realism} must be at least 0: it weighs a reward")
    use = ScoreUse(score_entry, score_place)
    sizes = (width, layers, heads, feed_forward, history_layers, slate_size)
    module = EGRerank(spec, *sizes, samples, realism, use)
    lessons = (EGRerank.teach_evaluator, EGRerank.teach_policy)
    first, second = (module_loss(module, lesson, dropout=dropout) for lesson in lessons)
    policy = ("request_encoder", "fusion", "pointer", *(("discriminator",) if realism > 0 else ()))
    stages = (Stage("evaluator", first, ("evaluator",), share=0.5), Stage("policy", second, policy))
    scorer = wrap(module, dropout=dropout, visit=EGRerank.touch)
    shown = arranging(module, EGRerank.arrange)
    return scorer._replace(arrange=shown, stages=stages, needs_slate=True)
