"""One optimiser per player, joined by `optax.multi_transform`; the idle player stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dnr_jax.nn.rowwise_adagrad import scale_by_rowwise_adagrad
from dnr_jax.nn.tables import NAMES, UPDATES, names
from dnr_jax.settings import MOST_INT, Settings, knob
from dnr_jax.types import Array

# The value of `turn`, which is the index of the player's branch in the step's switch.
RERANKER, GENERATOR = 0, 1
PLAYERS = {"reranker": RERANKER, "generator": GENERATOR}
FROZEN = "frozen"


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(Settings):
    """Settings of one player's Adam; the defaults are those of the DNR paper's group."""

    learning_rate: float = knob(1e-4, "step size at the start", above=0, at_most=10)
    weight_decay: float = knob(
        1e-3, "L2, added to the gradient before Adam's moments (not AdamW)", at_least=0, at_most=10
    )
    clip: float = knob(5.0, "bound on the global gradient norm", above=0, at_most=1e9)
    b1: float = knob(0.9, "decay of Adam's first moment", at_least=0, below=1)
    b2: float = knob(0.98, "decay of Adam's second moment", at_least=0, below=1)
    eps: float = knob(1e-6, "floor of Adam's denominator", above=0, at_most=1)
    decay_factor: float = knob(0.1, "the learning rate is multiplied by this", above=0, at_most=1)
    decay_every: int = knob(100, "number of epochs between decays of the learning rate", at_least=1)
    tables: str = knob(
        "dense",
        "embedding tables: dense = Adam on every row, the paper's; lazy_adam or rowwise_adagrad = "
        "on the batch's rows alone, for more than about 100,000 rows",
        one_of=UPDATES,
    )
    table_learning_rate: float = knob(
        0.01, "step size of row-wise Adagrad at the start", above=0, at_most=10
    )


def adam_with_l2(
    settings: OptimizerSettings, *, steps_per_epoch: int
) -> optax.GradientTransformation:
    """Chain clip, L2 inside Adam, Adam and a staircase schedule, in this order.

    This is PyTorch's `Adam(weight_decay=...)` after `clip_grad_norm_`, with `StepLR`, which is
    what the DNR paper's group uses. `optax.adamw` is a different method (decay outside the
    moments). Tables use row-wise Adagrad in place of Adam if the settings ask for it.

    Args:
      settings: settings of the player.
      steps_per_epoch: updates that count as one epoch for `decay_every`, >= 1.
    """
    # Updates are counted in int32, so a decay beyond that range never happens.
    decay_steps = min(settings.decay_every * steps_per_epoch, MOST_INT)
    schedule = optax.exponential_decay(
        settings.learning_rate, decay_steps, settings.decay_factor, staircase=True
    )
    return optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.add_decayed_weights(settings.weight_decay),
        _scale(settings),
        optax.scale_by_learning_rate(schedule),
    )


def _scale(settings: OptimizerSettings) -> optax.GradientTransformation:
    """Make Adam; tables may ask for row-wise Adagrad at its own learning rate."""
    adam = optax.scale_by_adam(settings.b1, settings.b2, settings.eps)
    if settings.tables != "rowwise_adagrad":
        return adam
    adagrad = optax.chain(
        scale_by_rowwise_adagrad(settings.eps),
        optax.scale(settings.table_learning_rate / settings.learning_rate),
    )
    return optax.multi_transform({"tables": adagrad, "others": adam}, _kinds)


def _kinds(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "tables" if names(path)[-1] in NAMES else "others", params
    )


def on_turn(
    inner: optax.GradientTransformation, player: int
) -> optax.GradientTransformationExtraArgs:
    """Run `inner` only when `turn == player`; else return zero updates and the state unchanged.

    Zero gradients are not enough: Adam's momentum would still move the idle player, and its step
    count would advance.
    """

    def update(updates: Any, state: Any, params: Any = None, *, turn: Array, **_: Any) -> Any:
        return jax.lax.cond(
            turn == player,
            lambda: inner.update(updates, state, params),
            lambda: (jax.tree.map(jnp.zeros_like, updates), state),
        )

    return optax.GradientTransformationExtraArgs(inner.init, update)


def two_player_optimizer(
    reranker: OptimizerSettings,
    generator: OptimizerSettings,
    *,
    steps_per_epoch: tuple[int, int],
    groups: tuple[str, ...] = (),
) -> optax.GradientTransformationExtraArgs:
    """Join both players' optimisers over `params = {"reranker": ..., "generator": ...}`.

    `update` needs the keyword `turn` (int32, `RERANKER` or `GENERATOR`). `init` raises `ValueError`
    if `params` has a group that is not a player, or if the reranker lacks one of `groups`.

    Args:
      reranker: settings of the reranker's Adam.
      generator: settings of the generator's Adam.
      steps_per_epoch: updates of the reranker and of the generator in an epoch in which both learn,
        each >= 1; each one's `decay_every` counts its own, the generator's from its first epoch on.
      groups: the reranker's parameter groups to update; the others stay fixed. () = all.
    """
    steps, generator_steps = steps_per_epoch
    transforms = {
        "reranker": on_turn(adam_with_l2(reranker, steps_per_epoch=steps), RERANKER),
        "generator": on_turn(adam_with_l2(generator, steps_per_epoch=generator_steps), GENERATOR),
    }
    # Zero gradients do not freeze a group: the L2 inside Adam would still move it.
    transforms[FROZEN] = optax.with_extra_args_support(optax.set_to_zero())
    return optax.multi_transform(transforms, partial(_labels, groups=groups))


def _labels(params: Any, *, groups: tuple[str, ...]) -> dict[str, Any]:
    """Label the parameters with their player, or as frozen, after checking that all are known."""
    unknown = sorted(set(params) - set(PLAYERS))
    if unknown:
        raise ValueError(
            f"parameter group(s) {unknown} do not belong to a player: the players are "
            f"{sorted(PLAYERS)}"
        )
    labels: dict[str, Any] = {name: name for name in params}
    if not groups:
        return labels
    reranker = params["reranker"]
    if not set(groups) <= set(reranker):
        raise ValueError(f"cannot train the groups {groups}: the model has only {sorted(reranker)}")
    return labels | {"reranker": {n: "reranker" if n in groups else FROZEN for n in reranker}}
