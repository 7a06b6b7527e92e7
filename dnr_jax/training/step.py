"""The alternating step of DNR (arXiv 2509.18736): one batch, one player's update.

theta:  L_theta = L_direct + lambda_m L_z                (generator held fixed)
phi:    L_phi   = lambda_adv L_adv + lambda_x L_x        (reranker held fixed)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from dnr_jax import objectives
from dnr_jax.objectives import LOSSES, ObjectiveSettings, Terms
from dnr_jax.training.parts import shares, split
from dnr_jax.types import Array, Batch, Divergence, Loss, Noise, Params, Reranker, apply

Gradients = Callable[..., tuple[Params, Terms]]
Step = Callable[["TrainState", Batch, Array], tuple["TrainState", Terms]]

# Terms of each player's loss, in the order in which they are checked to be finite.
# A stage's own loss, "own", replaces "direct" and "denoise".
RERANKER_TERMS = ("own", "direct", "denoise", "reranker_gradient")
GENERATOR_TERMS = ("adversarial", "regulariser", "generator_gradient")


@struct.dataclass
class TrainState:
    """Everything that training changes, as arrays only, so it can be vmapped, sharded and saved.

    Attributes:
      step: `int32`, updates of both players together.
      params: `{"reranker": ..., "generator": ...}`.
      opt_state: state of `two_player_optimizer`.
      key: typed key; a step draws from `fold_in(key, step)`.
      rate: `float32`, factor on both players' learning rates; trials of one row differ in it.
    """

    step: Array
    params: Params
    opt_state: Any
    key: Array
    rate: Array


class Game(NamedTuple):
    """The players and their losses.

    Attributes:
      reranker: the model q_theta.
      noise: the current generator (heuristic in phase 1, learned in phase 2); None trains on
        L_direct alone.
      divergence: the estimator of L_x; None in phase 1.
      own_loss: the loss that replaces L_theta in a stage of a reranker's own training; None =
        L_theta.
      objective: the losses of L_theta and L_phi, and their weights.
    """

    reranker: Reranker
    noise: Noise | None
    divergence: Divergence | None
    own_loss: Loss | None
    objective: ObjectiveSettings


def init_state(
    key: Array,
    reranker: Reranker,
    generator: Noise | None,
    optimizer: optax.GradientTransformation,
    example: Batch,
) -> TrainState:
    """Make the first state of one seed; with `generator=None` the generator has no parameters."""
    reranker_key, generator_key, run_key = jax.random.split(key, 3)
    params = {
        "reranker": reranker.init(reranker_key, example.request, example.scores),
        "generator": {} if generator is None else generator.init(generator_key, example),
    }
    step, rate = jnp.zeros((), jnp.int32), jnp.ones(())
    return TrainState(step, params, optimizer.init(params), run_key, rate)


def reranker_terms(
    theta: Params, phi: Params, batch: Batch, key: Array, game: Game
) -> tuple[Array, Terms]:
    """Compute L_theta and its terms; one encoder pass serves x and x'."""
    if game.own_loss is not None:
        own = game.own_loss(theta, batch, key=key, train=True)
        return own, {"own": own}
    encode_key, direct_key, noise_key, denoise_key = jax.random.split(key, 4)
    decode = game.reranker.decode
    memory = game.reranker.encode(theta, batch.request, key=encode_key, train=True)
    labels = objectives.smooth_labels(batch.labels, rate=game.objective.label_smoothing)
    scores = _shown_scores(batch, direct_key, game)
    logits = decode(theta, memory, scores, key=direct_key, train=True)
    if game.noise is None or game.objective.lambda_m == 0:
        loss = game.objective.loss
        direct = objectives.direct_loss(logits, labels, batch.weights, loss=loss)
        return direct, {"direct": direct}
    noisy = jax.lax.stop_gradient(game.noise.sample(phi, noise_key, batch))
    noisy_logits = decode(theta, memory, noisy, key=denoise_key, train=True)
    return objectives.reranker_loss(
        logits, noisy_logits, labels, batch.weights, settings=game.objective
    )


def _shown_scores(batch: Batch, key: Array, game: Game) -> Array:
    """Return the scores that L_direct sees; the key is folded, since dropout uses it too."""
    rate = game.objective.score_dropout
    drop_key = jax.random.fold_in(key, 1)
    return objectives.hide_scores(batch.scores, batch.request.index, drop_key, rate=rate)


def generator_terms(
    phi: Params, theta: Params, batch: Batch, key: Array, game: Game
) -> tuple[Array, Terms]:
    """Compute L_phi and its terms; the reranker is fixed and runs as deployed (no dropout)."""
    assert game.noise is not None
    assert game.divergence is not None
    noisy = game.noise.sample(phi, key, batch)
    memory = game.reranker.encode(theta, batch.request)
    logits = game.reranker.decode(theta, memory, noisy)
    return objectives.generator_loss(
        logits,
        batch.labels,
        batch.weights,
        objectives.regulariser_loss(game.divergence, noisy, batch),
        settings=game.objective,
    )


def reranker_gradient(
    theta: Params, phi: Params, batch: Batch, key: Array, game: Game, *, part: int
) -> tuple[Params, Terms]:
    """Compute the gradient of `reranker_terms` and its terms, `part` requests at a time.

    The reranker's own loss (`game.own_loss`) need not be a mean, so it sees the whole batch.
    """

    def slope(batch: Batch) -> tuple[Params, Terms]:
        gradient, terms = jax.grad(reranker_terms, has_aux=True)(theta, phi, batch, key, game)
        return gradient, _all_terms(terms)

    if part == len(batch.scores) or game.own_loss is not None:
        return slope(batch)
    chunks = split(batch, part)

    def add(total: Any, now: tuple[Batch, Array]) -> tuple[Any, None]:
        chunk, share = now
        found = slope(chunk)
        return jax.tree.map(lambda so_far, x: so_far + share * x, total, found), None

    nothing = jax.tree.map(jnp.zeros_like, (theta, _all_terms({})))
    weighed = shares(chunks, LOSSES[game.objective.loss].mass)
    found: tuple[Params, Terms] = jax.lax.scan(add, nothing, (chunks, weighed))[0]
    return found


def generator_gradient(
    phi: Params, theta: Params, batch: Batch, key: Array, game: Game, *, part: int
) -> tuple[Params, Terms]:
    """Compute the gradient of `generator_terms` and its terms, `part` requests at a time.

    The gradient of L_adv with respect to x' goes through the reranker part by part. The generator,
    which is small in comparison, and L_x see the whole batch.
    """
    if part == len(batch.scores):
        return jax.grad(generator_terms, has_aux=True)(phi, theta, batch, key, game)
    assert game.noise is not None
    assert game.divergence is not None
    noisy, pull = jax.vjp(partial(game.noise.sample, key=key, batch=batch), phi)
    chunks = split(batch, part)

    def judge(now: tuple[Array, Batch]) -> tuple[Array, Array]:
        return jax.value_and_grad(_adversarial)(now[0], now[1], theta, game)

    values, slopes = jax.lax.map(judge, (split(noisy, part), chunks))
    regulariser, slope = jax.value_and_grad(objectives.regulariser_loss, 1)(
        game.divergence, noisy, batch
    )
    share = shares(chunks, LOSSES[game.objective.loss].mass)
    slopes = (share[:, None, None] * slopes).reshape(noisy.shape)
    (gradient,) = pull(objectives.generator_sum(slopes, slope, settings=game.objective))
    return gradient, {"adversarial": jnp.dot(share, values), "regulariser": regulariser}


def _adversarial(noisy: Array, batch: Batch, theta: Params, game: Game) -> Array:
    logits = apply(game.reranker, theta, batch.request, noisy)
    loss = game.objective.loss
    return objectives.adversarial_loss(logits, batch.labels, batch.weights, loss=loss)


def make_step(
    game: Game,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    plays: bool,
    part: int | None = None,
) -> Step:
    """Make `step(state, batch, turn) -> (state, terms)`: one update of the player whose turn it is.

    Args:
      game: players and losses.
      optimizer: a `two_player_optimizer`.
      plays: whether the generator takes turns at all (phase 2). If not, its branch is not built.
      part: requests whose activations are held at once, a divisor of the batch; None = all. The
        gradient is that of the whole batch, with the same noise and dropout.

    Returns:
      A pure function. `turn` is `RERANKER` or `GENERATOR`; the idle player's parameters and
      optimiser state come back bit-identical. `terms` holds float32 scalars under
      `RERANKER_TERMS` and `GENERATOR_TERMS`; those of the idle player are 0.
    """

    def turn_of(player: str, idle: str, slope: Gradients) -> Gradients:
        def gradients(params: Params, batch: Batch, key: Array) -> tuple[Params, Terms]:
            size = part or len(batch.scores)
            gradient, terms = slope(params[player], params[idle], batch, key, game, part=size)
            terms |= {f"{player}_gradient": optax.tree.norm(gradient)}
            zeros = jax.tree.map(jnp.zeros_like, params[idle])
            return {player: gradient, idle: zeros}, _all_terms(terms)

        return gradients

    turns = [turn_of("reranker", "generator", reranker_gradient)]
    if plays:
        turns.append(turn_of("generator", "reranker", generator_gradient))

    def step(state: TrainState, batch: Batch, turn: Array) -> tuple[TrainState, Terms]:
        key = jax.random.fold_in(state.key, state.step)
        gradients, terms = jax.lax.switch(turn, turns, state.params, batch, key)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, turn=turn)
        # Adam's update is linear in the learning rate: scaling one scales the other.
        updates = jax.tree.map(lambda update: state.rate * update, updates)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state, state.key, state.rate), terms

    return step


def _all_terms(terms: Terms) -> Terms:
    return {name: terms.get(name, jnp.zeros(())) for name in RERANKER_TERMS + GENERATOR_TERMS}
