"""FS-LTR-style: the retriever learns to rank by how far an item gets, and whether it is liked.

After Zheng et al., full stage learning to rank (WWW 2024): a stage should rank by the probability
that an item survives the later stages and is liked. As in RecFlow's version (Liu et al., arXiv
2410.20868) the outcomes of all stages are levels on one scale, and the loss is pairwise:

  sum over pairs with level_i > level_j of log(1 + exp(s1_j - s1_i)) / number of pairs,

levels: liked 3 > exposed 2 > would be shown by the second stage 1 > not 0.

It is only FS-LTR-style: the paper first estimates the selection of the later stages. Here there is
no log of the stages. So level 1 are those unexposed items of a pool that our second stage, trained
at the same time by cross-entropy, ranks among the first `passed`. In the warm-up there is no level
1.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.retrievers.joint import JointSettings, Outcome, cross_entropy, joint
from dnr_jax.retrievers.retriever import Retriever
from dnr_jax.types import Array


def fs_ltr(settings: JointSettings) -> Retriever:
    """Make the retriever (Zheng et al. 2024); see the module."""
    return joint(settings, loss)


def loss(settings: JointSettings, s1: Array, s2: Array, outcome: Outcome) -> Array:
    """Return the sum of the first stage's pairwise loss and the second's cross-entropy: `[B]`."""
    own = cross_entropy(s2, outcome.label, outcome.where)
    return pairwise(s1, levels(s2, outcome, settings.passed), outcome.where) + own


def levels(s2: Array, outcome: Outcome, passed: int) -> Array:
    """Return how far each item of a pool got: `int32 [B, M]`, 0 to 3."""
    unexposed = outcome.where & ~outcome.exposed
    survives = unexposed & (ops.ranks(jax.lax.stop_gradient(s2), unexposed) <= passed)
    shown = jnp.where(outcome.label > 0.5, 3, 2)
    return jnp.where(outcome.exposed, shown, survives & outcome.warm)


def pairwise(scores: Array, level: Array, where: Array) -> Array:
    """Average the logistic loss of all pairs of different level: `[B]`; 0 without a pair."""
    higher = (level[:, :, None] > level[:, None]) & where[:, :, None] & where[:, None]
    each = jax.nn.softplus(scores[:, None] - scores[:, :, None])
    return jnp.sum(each * higher, axis=(1, 2)) / jnp.maximum(higher.sum(axis=(1, 2)), 1)
