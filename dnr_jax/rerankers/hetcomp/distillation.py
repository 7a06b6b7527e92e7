"""A school: snapshots of teachers, and a student that follows their consensus.

The procedure of HetComp; `rerankers.hetcomp` states the method, `consensus` its equations.
Every stage trains its own parameter group, which starts as a copy of the one of the stage before.
Earlier groups are kept: the groups `teachers_v` are the snapshots, and the groups `student_n` are
the student at the ends of the coarse stages, where pointers move. So a pointer is a function of the
request and of past students, and nothing has to be stored per request.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dnr_jax import ops
from dnr_jax.nn.adapter import logit_loss
from dnr_jax.nn.losses import bce
from dnr_jax.rerankers.hetcomp.consensus import (
    coarse_loss,
    discrepancy,
    fine_loss,
    importance,
    move,
)
from dnr_jax.types import Array, Batch, Loss, Memory, Params, Request, Reranker, Stage, apply

# A pointer's n-th move needs d(Q) > RATIO * DECAY^n * d(v + 1), n = 0, 1, ...
RATIO, DECAY = 1.05, 0.995**10


class School(NamedTuple):
    """Who learns from whom: the student, the teachers by name, and Q."""

    student: Reranker
    teachers: Mapping[str, Reranker]
    snapshots: int


def groups(who: str, school: School) -> list[str]:
    """Name the parameter groups of `who`, "teachers" or "student", in the order of training."""
    return [f"{who}_{number}" for number in range(1, school.snapshots + 1)]


def distilled(school: School) -> Reranker:
    """Make the student that the school trains, with all of its parameters and stages."""

    def encode(
        params: Params, request: Request, *, key: Array | None = None, train: bool = False
    ) -> Memory:
        return school.student.encode(params["student"], request, key=key, train=train)

    def decode(
        params: Params,
        memory: Memory,
        scores: Array,
        *,
        key: Array | None = None,
        train: bool = False,
    ) -> Array:
        return school.student.decode(params["student"], memory, scores, key=key, train=train)

    return Reranker(partial(_enrol, school), encode, decode, stages=lessons(school), log_odds=False)


def _enrol(school: School, key: Array, request: Request, scores: Array) -> Params:
    """Make the parameters of all groups; groups of one kind start equal."""
    keys = jax.random.split(key, len(school.teachers) + 1)
    student = school.student.init(keys[0], request, scores)
    pairs = zip(school.teachers.items(), keys[1:], strict=True)
    teachers = {name: teacher.init(own, request, scores) for (name, teacher), own in pairs}
    return (
        {group: teachers for group in groups("teachers", school)}
        | {group: student for group in groups("student", school)}
        | {"student": student}
    )


def consensus(
    school: School, params: Params, batch: Batch, snapshots: list[str], past: list[str]
) -> Array:
    """Rank the judged candidates by the teachers at their pointers: `int32 [B, N]`, 1 = best.

    Args:
      school: the models.
      params: parameters of all groups; no gradient passes.
      batch: the requests.
      snapshots: groups of teachers; all pointers start at the first.
      past: groups of students, at each of which pointers move.
    """
    fixed, real = jax.lax.stop_gradient(params), batch.weights > 0

    def weigh(model: Reranker, own: Params) -> Array:
        return importance(apply(model, own, batch.request, batch.scores), real)

    opinions = jnp.stack(
        [
            jnp.stack([weigh(teacher, fixed[group][name]) for group in snapshots])
            for name, teacher in school.teachers.items()
        ]
    )  # [T, Q, B, N]
    pointers = jnp.zeros((opinions.shape[0], opinions.shape[2]), jnp.int32)
    for number, group in enumerate(past):
        mine = jnp.broadcast_to(weigh(school.student, fixed[group]), opinions.shape)
        distances = discrepancy(mine, opinions)
        pointers = move(pointers, distances, ratio=RATIO * DECAY**number)
    taught = jnp.take_along_axis(opinions, pointers[:, None, :, None], axis=1)[:, 0]
    return ops.ranks(taught.sum(axis=0), real)


def teach(school: School, group: str) -> Loss:
    """Make the loss of the teachers in `group`: the sum of their binary cross-entropies."""
    losses = {name: logit_loss(teacher, bce) for name, teacher in school.teachers.items()}

    def loss(
        params: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> Array:
        keys = [None] * len(losses) if key is None else list(jax.random.split(key, len(losses)))
        pairs = zip(losses.items(), keys, strict=True)
        own = [each(params[group][n], batch, key=k, train=train) for (n, each), k in pairs]
        return jnp.stack(own).sum()

    return loss


def follow(
    school: School, group: str, snapshots: list[str], past: list[str], *, fine: bool
) -> Loss:
    """Make the loss of the student in `group`; for `snapshots` and `past` see `consensus`."""
    distance = fine_loss if fine else coarse_loss

    def loss(
        params: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> Array:
        request, real = batch.request, batch.weights > 0
        own = params[group]
        logits = apply(school.student, own, request, batch.scores, key=key, train=train)
        ranks = consensus(school, params, batch, snapshots, past)
        return distance(logits, ranks, real & (batch.labels > 0), real)

    return loss


def copy(source: str, target: str, params: Params) -> Params:
    """Let the group `target` start from what `source` has learned."""
    return params | {target: params[source]}


def lessons(school: School) -> tuple[Stage, ...]:
    """List the stages: teachers up to each snapshot, then the student, first coarse, then fine."""
    taught, learned = groups("teachers", school), groups("student", school)
    share = 0.75 / school.snapshots
    losses = [(group, share, teach(school, group)) for group in taught]
    for number, group in enumerate(learned):
        # Before pointers have moved, only the first snapshot is used.
        seen = taught if number else taught[:1]
        lesson = follow(school, group, seen, learned[:number], fine=False)
        losses.append((group, share, lesson))
    losses.append(("student", 0.5, follow(school, "student", taught[-1:], [], fine=True)))
    before = [None, *taught[:-1], None, *learned]
    return tuple(
        Stage(group, loss, (group,), length, begin=partial(copy, source, group) if source else None)
        for source, (group, length, loss) in zip(before, losses, strict=True)
    )
