"""One optimiser a player, joined by `optax.multi_transform`, the idle player left untouched."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dnr_jax.types import Array

# The value of `turn`, and the place of the player's branch in the step's switch.
RERANKER, GENERATOR = 0, 1
PLAYERS = {"reranker": RERANKER, "generator": GENERATOR}
FROZEN = "frozen"


class OptimizerSettings(NamedTuple):
    """Settings of one player's Adam.

    Attributes:
      learning_rate: step size at the start, > 0.
      weight_decay: L2 coefficient added to the gradient before Adam sees it (not AdamW), >= 0.
      clip: bound on the global gradient norm, > 0.
      b1, b2, eps: Adam's moments and floor.
      decay_factor: the learning rate is multiplied by it every `decay_steps` updates.
      decay_steps: updates of this player between two decays, >= 1.
    """

    learning_rate: float
    weight_decay: float
    clip: float
    b1: float
    b2: float
    eps: float
    decay_factor: float
    decay_steps: int


def adam_with_l2(settings: OptimizerSettings) -> optax.GradientTransformation:
    """Chain clip, L2 inside Adam, Adam and a staircase schedule, in this order.

    This is PyTorch's `Adam(weight_decay=...)` after `clip_grad_norm_`, with `StepLR`: what the
    DNR paper's group uses. `optax.adamw` is a different method (decay outside the moments).
    """
    schedule = optax.exponential_decay(
        settings.learning_rate, settings.decay_steps, settings.decay_factor, staircase=True
    )
    return optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.add_decayed_weights(settings.weight_decay),
        optax.scale_by_adam(settings.b1, settings.b2, settings.eps),
        optax.scale_by_learning_rate(schedule),
    )


def on_turn(
    inner: optax.GradientTransformation, player: int
) -> optax.GradientTransformationExtraArgs:
    """Run `inner` only when `turn == player`; else return zero updates and the state unchanged.

    Zeroed gradients alone would not do: Adam's momentum would still move the idle player and its
    step count would advance.
    """

    def update(updates: Any, state: Any, params: Any = None, *, turn: Array, **_: Any) -> Any:
        return jax.lax.cond(
            turn == player,
            lambda: inner.update(updates, state, params),
            lambda: (jax.tree.map(jnp.zeros_like, updates), state),
        )

    return optax.GradientTransformationExtraArgs(inner.init, update)


def two_player_optimizer(
    reranker: OptimizerSettings, generator: OptimizerSettings, *, groups: tuple[str, ...] = ()
) -> optax.GradientTransformationExtraArgs:
    """Join both players' optimisers over `params = {"reranker": ..., "generator": ...}`.

    `update` needs the keyword `turn` (int32, `RERANKER` or `GENERATOR`). `init` raises
    `ValueError` when `params` has a group that is no player, or the reranker lacks one of `groups`.

    Args:
      reranker: settings of the reranker's Adam.
      generator: settings of the generator's Adam.
      groups: the reranker's parameter groups to update, the others stay as they are; () = all.
    """
    settings = {"reranker": reranker, "generator": generator}
    transforms = {name: on_turn(adam_with_l2(settings[name]), PLAYERS[name]) for name in PLAYERS}
    # Zero gradients alone would not freeze a group: the L2 inside Adam would still move it.
    transforms[FROZEN] = optax.with_extra_args_support(optax.set_to_zero())
    return optax.multi_transform(transforms, partial(_labels, groups=groups))


def _labels(params: Any, *, groups: tuple[str, ...]) -> dict[str, Any]:
    """Label the parameters with their player, or as frozen, after checking that all are known."""
    unknown = sorted(set(params) - set(PLAYERS))
    if unknown:
        raise ValueError(f"parameter group(s) {unknown} belong to no player of {sorted(PLAYERS)}")
    labels: dict[str, Any] = {name: name for name in params}
    if not groups:
        return labels
    reranker = params["reranker"]
    if not set(groups) <= set(reranker):
        raise ValueError(f"groups {groups} are to be trained, the model has {sorted(reranker)}")
    return labels | {"reranker": {n: "reranker" if n in groups else FROZEN for n in reranker}}
