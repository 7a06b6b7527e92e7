"""PIER as the DNR paper's group has it: PRM with a second loss, on scores made from the labels.

After the public code of GoalRank (arXiv 2509.22046). With q_theta PRM's likelihood,

    L = BCE(q_theta(z | x), z) + 0.1 BCE(q_theta(z | x_t), z)
    x_t = min_max(z + 0.1 (eps - 1/2)),   eps ~ Beta(1/2, 1/2), per request

This is DNR with heuristic Beta noise alone and lambda_m = 0.1: the scaling cancels the 1/2 and the
sum of the weights, so x_t is x' of Eq. 4 (arXiv 2509.18736) with lambda_c = 1/11. As a scorer, and
so under DNR, `pier_group` is `prm`.

Deviations from that code: each x stays with its own candidate (there the candidates are shuffled
but their scores are not); x is read at inference as well as in training; positions and the causal
mask are knobs (there "index" and True). Its third term, a margin between two orders of the shown
items, is left out. It has no gradient, because it is computed on detached scores, and its labels
are taken along the batch instead of the list.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.nn.adapter import require_key
from dnr_jax.nn.losses import bce
from dnr_jax.rerankers.prm import PRMSettings, prm
from dnr_jax.types import Array, Batch, Loss, Params, Reranker, Stage, Task

# From the group's code: the size of the noise, and the weight of the loss on noisy scores.
NOISE_SIZE = 0.1
NOISY_WEIGHT = 0.1


def noisy_scores(key: Array, batch: Batch) -> Array:
    """Draw x_t `float32 [B, N]` in [0, 1], each request from its own key; 0 for padding.

    With noise of a size below 1, every positive scores higher than every negative. A request whose
    real candidates all have the same value (one candidate) gets 1/2.
    """

    def draw(request_key: Array, labels: Array) -> Array:
        # Beta(1/2, 1/2) is the arcsine law.
        eps = jnp.sin(jnp.pi / 2 * jax.random.uniform(request_key, labels.shape)) ** 2
        return labels + NOISE_SIZE * (eps - 0.5)

    mixed = ops.per_request(draw, key, batch.request.index, batch.labels)
    return ops.min_max(mixed, batch.request.where)


def noisy_loss(scorer: Reranker) -> Loss:
    """Make the loss L of a scorer, whose encoder runs once for x and x_t."""

    def loss(
        params: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> Array:
        require_key(key, train=train)
        keys = jax.random.split(jax.random.key(0) if key is None else key, 4)
        memory = scorer.encode(params, batch.request, key=keys[0], train=train)
        noisy = noisy_scores(keys[1], batch)
        plain, denoised = (
            bce(
                scorer.decode(params, memory, scores, key=drop_key, train=train),
                batch.labels,
                batch.weights,
            )
            for scores, drop_key in ((batch.scores, keys[2]), (noisy, keys[3]))
        )
        return plain + NOISY_WEIGHT * denoised

    return loss


def pier_group(task: Task, settings: PRMSettings) -> Reranker:
    """Build the group's PIER.

    With `score_entry="none"` both terms of L are the same except for dropout. The group's own entry
    is "add" at place "late_linear".
    """
    scorer = prm(task, settings)
    return scorer._replace(stages=(Stage("train", noisy_loss(scorer)),))
