"""The standard timed workload: N = 50 candidates, T = 50 events, width 128, 3,500 items."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dnr_jax import divergences, noise, rerankers
from dnr_jax.nn.precision import compute_in
from dnr_jax.objectives import ObjectiveSettings
from dnr_jax.training.optimizers import OptimizerSettings, two_player_optimizer
from dnr_jax.training.step import Game, TrainState, init_state
from dnr_jax.types import Batch, FeatureSpec, Request, Task

USERS, ITEMS = 6040, 3500
SPEC = FeatureSpec(
    user=("user",),
    context=(),
    history=("item",),
    item=("item",),
    sizes={"user": USERS + 2, "item": ITEMS + 2},
)
TASK = Task(SPEC)
# Of `dnr_jax.rerankers.prm.PRMSettings`: 2 + 2 layers, 4 heads, feed-forward 128.
PRM: dict[str, Any] = {
    "width": 128,
    "layers": 2,
    "heads": 4,
    "feed_forward": 128,
    "dropout": 0.1,
    "history_layers": 2,
    "positions": "none",
    "causal": False,
    "score_entry": "concatenate",
    "score_place": "late",
}

# Sizes of the smoke modes.
TINY = {"width": 8, "layers": 1, "history_layers": 1, "heads": 2, "feed_forward": 8}
ADAM = OptimizerSettings()


class Work(NamedTuple):
    """What a step trains: `phase` 0 is plain PRM on the observed scores; `entry` of the scores."""

    phase: int
    entry: str

    def __str__(self) -> str:
        return ("PRM", "DNR phase 1", "DNR phase 2")[self.phase] + f", {self.entry}"


WORKS = tuple(Work(phase, entry) for entry in ("late", "early") for phase in (0, 1, 2))


def knobs_of(work: Work, **sizes: Any) -> dict[str, Any]:
    return PRM | {"score_place": work.entry} | sizes


def make_game(work: Work, dtype: str, *, task: Task = TASK, **sizes: Any) -> Game:
    """Build the players of `work` with the default weights of the losses."""
    reranker = rerankers.build("prm", task, **knobs_of(work, **sizes))
    learned = noise.build_generator("learned_direct", task, noise.build_draw("beta"))
    generators = (None, noise.build("beta"), learned)
    density = divergences.build("density")
    return Game(
        reranker=compute_in(reranker, dtype),
        noise=generators[work.phase],
        divergence=density if work.phase == 2 else None,
        own_loss=None,
        objective=ObjectiveSettings(),
    )


def optimizer() -> optax.GradientTransformationExtraArgs:
    return two_player_optimizer(ADAM, ADAM, steps_per_epoch=(10_000, 10_000))


def fresh(game: Game, batch: Batch, seed: int = 0) -> TrainState:
    """Make the first state of a seed."""
    first = jax.tree.map(lambda a: jnp.asarray(a[:1]), batch)
    generator = game.noise if game.divergence is not None else None
    return init_state(jax.random.key(seed), game.reranker, generator, optimizer(), first)


def make_batch(
    requests: int,
    *,
    candidates: int = 50,
    history: int = 50,
    slate: int = 6,
    items: int = ITEMS,
    seed: int = 0,
) -> Batch:
    """Draw full-length random requests: six shown, labels at one in two of these; NumPy arrays."""
    random = np.random.default_rng(seed)
    shape = (requests, candidates)
    shown = np.argsort(random.random(shape), axis=1)[:, :slate].astype(np.int32)
    exposed = np.zeros(shape, bool)
    np.put_along_axis(exposed, shown, True, axis=1)
    request = Request(
        index=np.arange(requests, dtype=np.uint32),
        user=random.integers(2, USERS + 2, (requests, 1), dtype=np.int32),
        context=np.zeros((requests, 0), np.int32),
        history=random.integers(2, items + 2, (requests, history, 1), dtype=np.int32),
        history_where=np.ones((requests, history), bool),
        candidates=random.integers(2, items + 2, (*shape, 1), dtype=np.int32),
        where=np.ones(shape, bool),
    )
    return Batch(
        request=request,
        scores=random.random(shape, dtype=np.float32),
        labels=(exposed & (random.random(shape) < 0.5)).astype(np.float32),
        exposed=exposed,
        slate=shown,
        weights=np.ones(shape, np.float32),
    )


def train_flops(*, candidates: int = 50, history: int = 50, **sizes: int) -> float:
    """Count FLOPs per request of training a plain PRM: matrix products, forward and backward.

    A multiply-add is two; every layer computes all of its positions; the backward pass costs twice
    the forward one. Norms, activations, the optimiser and a second pass of the head are left out.
    """
    knobs = PRM | sizes
    d, hidden = knobs["width"], knobs["feed_forward"]

    def layer(length: int) -> int:
        return length * (4 * d * d + 2 * d * hidden) + 2 * length * length * d

    products = knobs["history_layers"] * layer(history) + knobs["layers"] * layer(candidates)
    products += (candidates + history) * d * d  # item encodings
    products += 3 * d * d  # the user's state: 2d -> d -> d
    products += d * d + candidates * 3 * d * d  # fusion, and its perceptron
    products += candidates * ((d + 1) * d + d)  # head
    return 3.0 * 2.0 * products
