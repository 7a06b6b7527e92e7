"""RankFlow-style: two stages learn from each other, the second on the items that the first passes.

After Qin et al., RankFlow (SIGIR 2022). In the warm-up both stages learn alone, by cross-entropy on
whole pools. Then the second learns on the items that the first passes on (self-learning on its own
stage's samples). The first learns on the whole pool and, on the items that it passed on, from the
second as a frozen tutor:

  alpha L_topk + (1 - alpha) mean (sigma(s1) - sigma(s2))^2,
  L_topk = -log(1e-10 + sigma(mean s1 of the tutor's top k - mean s1 of the rest)).

It is only RankFlow-style: the paper trains the stages in turn, on new samples in each round. Here
each step trains both, on samples of the current models, and each sees the other frozen. The paper's
tutor also teaches a pre-ranker; there are only two stages here. The weights of the terms are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.retrievers.joint import JointSettings, Outcome, cross_entropy, joint, mean
from dnr_jax.retrievers.retriever import Retriever
from dnr_jax.settings import knob
from dnr_jax.types import Array


@dataclass(frozen=True, kw_only=True)
class RankFlowSettings(JointSettings):
    """Settings of RankFlow."""

    alpha: float = knob(0.2, "share of L_topk in the tutor's loss", at_least=0, at_most=1)
    tutor: float = knob(1.0, "weight of the tutor's loss", at_least=0, at_most=1e3)
    shown: int = knob(6, "k, items that the tutor would show", at_least=1)

    def check(self) -> None:
        """Refuse a tutor that shows all items that it receives."""
        super().check()
        if self.shown >= self.passed:
            raise ValueError(
                f"shown is {self.shown} and passed is {self.passed}: passed must be larger than "
                "shown"
            )


def rankflow(settings: RankFlowSettings) -> Retriever:
    """Make the retriever (Qin et al. 2022); see the module."""
    return joint(settings, loss)


def loss(settings: RankFlowSettings, s1: Array, s2: Array, outcome: Outcome) -> Array:
    """Return the sum of both stages' own losses and, after the warm-up, the tutor's: `[B]`."""
    handed = ops.ranks(jax.lax.stop_gradient(s1), outcome.where)
    handed_on = outcome.where & (handed <= settings.passed)
    seen = jnp.where(outcome.warm, handed_on, outcome.where)
    own = cross_entropy(s1, outcome.label, outcome.where) + cross_entropy(s2, outcome.label, seen)
    lesson = tutoring(s1, s2, handed_on, alpha=settings.alpha, shown=settings.shown)
    return own + settings.tutor * jnp.where(outcome.warm, lesson, 0.0)


def tutoring(student: Array, tutor: Array, where: Array, *, alpha: float, shown: int) -> Array:
    """Return the tutor's loss of each list, `[B]`; the tutor has no gradient.

    Args:
      student: `float32 [B, M]`, s1.
      tutor: `float32 [B, M]`, s2.
      where: `bool [B, M]`, the list.
      alpha: share of L_topk.
      shown: k.
    """
    tutor = jax.lax.stop_gradient(tutor)
    top = where & (ops.ranks(tutor, where) <= shown)
    apart = mean(student, top) - mean(student, where & ~top)
    top_k = -jnp.log(1e-10 + jax.nn.sigmoid(apart))
    squares = mean(jnp.square(jax.nn.sigmoid(student) - jax.nn.sigmoid(tutor)), where)
    return alpha * top_k + (1 - alpha) * squares
