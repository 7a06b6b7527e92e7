"""An epoch as one device program: a scan over turns, each gathering its rows on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax.data import loader
from dnr_jax.objectives import Terms
from dnr_jax.training.optimizers import GENERATOR, RERANKER
from dnr_jax.training.step import GENERATOR_TERMS, RERANKER_TERMS, Step, TrainState
from dnr_jax.types import Array, Batch

Epoch = Callable[
    [TrainState, Batch, Array | np.ndarray, Array | np.ndarray], tuple[TrainState, Terms]
]


class NonFiniteError(ArithmeticError):
    """A loss term or gradient is no longer finite."""


class Alternation(NamedTuple):
    """Which player updates on which batch in an epoch.

    Attributes:
      turns: `int32 [U]`, `RERANKER` or `GENERATOR` for each update.
      batches: `int32 [U]`, which batch of the epoch the update sees.
    """

    turns: np.ndarray
    batches: np.ndarray


def alternate(batches: int, *, generator_updates: int, reranker_updates: int) -> Alternation:
    """Alternate the players over an epoch of `batches` batches.

    The reranker makes exactly one update per batch in both phases, so all rows of a table of
    results train equally long. Before every `reranker_updates` of these, the generator makes
    `generator_updates` on the same batches (0 in phase 1).
    """
    turns: list[int] = []
    seen: list[int] = []
    for start in range(0, batches, reranker_updates):
        group = range(start, min(start + reranker_updates, batches))
        seen += [group[i % len(group)] for i in range(generator_updates)] + list(group)
        turns += [GENERATOR] * generator_updates + [RERANKER] * len(group)
    return Alternation(np.asarray(turns, np.int32), np.asarray(seen, np.int32))


def make_epoch(
    step: Step, *, seeds: str, take: Callable[[Batch, Array], Batch] = loader.take
) -> Epoch:
    """Make `epoch(states, data, rows, turns) -> (states, terms)` for stacked seeds, jitted.

    Args:
      step: a step of `make_step`.
      seeds: how the seed axis runs. "vmap" computes all seeds at once (accelerators); "map"
        computes one after the other in the same program (CPU, where batched weights are slow).
      take: `take(data, rows)` is the batch of one update. `loader.take` gathers it from a whole
        split; `loader.pick` picks one of the ready batches of a part.

    Returns:
      A function of `states` (leading axis S; donated), `data` (what `take` reads, on the device),
      `rows` (`int32 [S, U, B]` for `loader.take`, `[S, U]` for `loader.pick`) and `turns`
      `int32 [U]`; `terms` are `float32 [S, U]`.

    Raises:
      ValueError: `seeds` is neither "vmap" nor "map".
    """

    def run(state: TrainState, data: Batch, rows: Array, turns: Array) -> tuple[TrainState, Terms]:
        def update(state: TrainState, now: tuple[Array, Array]) -> tuple[TrainState, Terms]:
            return step(state, take(data, now[0]), now[1])

        return jax.lax.scan(update, state, (rows, turns))

    def mapped(
        states: TrainState, data: Batch, rows: Array, turns: Array
    ) -> tuple[TrainState, Terms]:
        return jax.lax.map(lambda seed: run(seed[0], data, seed[1], turns), (states, rows))

    programs = {"vmap": jax.vmap(run, in_axes=(0, None, 0, None)), "map": mapped}
    if seeds not in programs:
        raise ValueError(f"seeds is {seeds!r}: choose one of {sorted(programs)}")
    return jax.jit(programs[seeds], donate_argnums=0)


def seed_axis() -> str:
    """Choose how seeds run here: "map" on a CPU, "vmap" on an accelerator."""
    return "map" if jax.default_backend() == "cpu" else "vmap"


def rows_of_epoch(
    count: int, batch_size: int, updates: Alternation, *, seeds: list[int], epoch: int
) -> np.ndarray:
    """Return `int32 [S, U, B]`: each seed's own shuffle of the split, laid out by `updates`."""
    orders = [loader.order(count, batch_size, seed=s, epoch=epoch) for s in seeds]
    return np.stack([order[updates.batches] for order in orders])


def epoch_means(terms: Terms, turns: np.ndarray) -> dict[str, np.ndarray]:
    """Average each term over its own player's turns: `float32 [S]` per term, without idle terms."""
    means: dict[str, np.ndarray] = {}
    for names, player in ((RERANKER_TERMS, RERANKER), (GENERATOR_TERMS, GENERATOR)):
        if np.any(turns == player):
            means |= {n: np.asarray(terms[n])[:, turns == player].mean(axis=1) for n in names}
    return means


def check_finite(terms: Terms, *, first_step: int, seeds: list[int]) -> None:
    """Stop a run whose losses or gradients are no longer finite.

    Args:
      terms: `float32 [S, U]` per term, of one epoch.
      first_step: number of the epoch's first update.
      seeds: the seed of each row of `terms`.

    Raises:
      NonFiniteError: a value is not finite; it names the first such step, its seed and term.
    """
    names = RERANKER_TERMS + GENERATOR_TERMS
    bad = ~np.isfinite(np.stack([np.asarray(terms[n]) for n in names], axis=-1))  # [S, U, terms]
    if not bad.any():
        return
    update, seed, term = min((u, s, t) for s, u, t in np.argwhere(bad))
    raise NonFiniteError(
        f"the term {names[term]!r} is not finite at step {first_step + update} "
        f"(seed {seeds[seed]}). The last good checkpoint is kept. Try a lower learning rate or a "
        "smaller clip, or look for extreme values in the data"
    )


@jax.jit
def stack_states(states: list[TrainState]) -> TrainState:
    """Stack the states of single seeds along a new leading axis, in one program for all leaves."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
