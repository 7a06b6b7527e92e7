"""Train one row of the table, seeds together, from wherever its last checkpoint left it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from dnr_jax.data import loader
from dnr_jax.data.store import Prepared
from dnr_jax.experiment import processes, validation
from dnr_jax.experiment.first_step import FirstStep
from dnr_jax.experiment.players import NO_NOISE, Players
from dnr_jax.experiment.rows import Row
from dnr_jax.io import checkpoints, compiled
from dnr_jax.io.run_folder import RunFolder
from dnr_jax.training import sharding
from dnr_jax.training.epoch import alternate, make_epoch, seed_axis, stack_states
from dnr_jax.training.parts import part_size
from dnr_jax.training.phases import Phase, Progress, Record, StagePlan, finished, fit, start
from dnr_jax.training.step import Game, TrainState, init_state, make_step
from dnr_jax.training.stream import streamed
from dnr_jax.types import Array, Batch, Noise, Params, Stage


def train(row: Row, players: Players, prepared: Prepared, run: RunFolder) -> Progress:
    """Train the row's players through all stages, checkpointing after every epoch.

    Every stage has checkpoints and an optimiser of its own, and starts from the best parameters of
    the one before. A row that was trained before comes back from its checkpoints without training.

    Returns:
      The progress of the last stage.

    Raises:
      ValueError: the batch does not fit the training split, or a checkpoint is torn beyond repair.
      NonFiniteError: a loss or gradient is not finite; the last good checkpoint is kept.
    """
    began = time.monotonic()
    data = prepared.splits["train"].batch
    if not row.config["train"]["stream"]:
        data = sharding.replicate(players.layout, validation.plain(data))
    lengths = [stage_epochs(row.config, stage) for stage in players.stages]
    progress: Progress | None = None
    with (
        compiled.counted() as count,
        tqdm(total=sum(lengths), desc=row.label, unit="epoch", leave=False) as bar,
    ):
        first = FirstStep(row, run, count, began)
        for number, stage in enumerate(players.stages):
            place = _Place(row, stage, number, number == len(lengths) - 1, sum(lengths[:number]))
            progress = _train_stage(place, players, progress, data, prepared, run, bar, first)
    assert progress is not None
    return progress


class _Place(NamedTuple):
    """Where training stands: the row, its stage and the epochs planned for the stages before."""

    row: Row
    stage: Stage
    number: int
    last: bool
    offset: int

    @property
    def name(self) -> str:
        return f"{self.row.label}: {self.stage.name}"


def _train_stage(
    place: _Place,
    players: Players,
    before: Progress | None,
    data: Batch,
    prepared: Prepared,
    run: RunFolder,
    bar: tqdm,
    first: FirstStep,
) -> Progress:
    config, entries = place.row.config, entries_of(place.row.config)
    seeds = [entry.seed for entry in entries]
    plan = make_plan(config, players, place.stage, count=data.scores.shape[0], seeds=seeds)
    states = _initial_states(place, players, before, prepared, entries)
    folder = run.checkpoints(place.row.key)
    folder = folder if place.last else folder / place.stage.name
    progress = _restore(folder, start(states, len(entries)), players.layout)
    bar.set_description(place.row.label if place.last else place.name)
    bar.update(place.offset + int(progress.epoch) - bar.n)
    if finished(progress, plan):
        return progress
    run.rewind_metrics(place.row.key, place.offset + int(progress.epoch))
    validate = (
        validation.ndcg(players, prepared, config)
        if place.last
        else validation.minus_loss(players, place.stage, prepared, config)
    )
    save = _saver(place, run, folder, entries, bar)
    return fit(progress, data, first.noted(plan), validate, save)


class Entry(NamedTuple):
    """One of the trainings that a row runs side by side: a seed at a factor on the rates."""

    seed: int
    rate: float


def entries_of(config: dict[str, Any]) -> list[Entry]:
    """List a row's trainings, factor by factor: all seeds of the first, of the second, ..."""
    factors = config["train"]["learning_rate_factors"]
    return [Entry(seed, rate) for rate in factors for seed in seed_numbers(config)]


def best_trial(progress: Progress, config: dict[str, Any]) -> tuple[Progress, float]:
    """Choose the factor with the best mean validation over seeds; return its part and the factor.

    The first of equally good ones wins.
    """
    factors, seeds = config["train"]["learning_rate_factors"], config["train"]["seeds"]
    if len(factors) == 1:
        return progress, float(factors[0])
    means = np.asarray(progress.best_value).reshape(len(factors), seeds).mean(axis=1)
    number = int(np.argmax(means))
    return _part(progress, number * seeds, seeds), float(factors[number])


@partial(jax.jit, static_argnums=2)
def _part(progress: Progress, start: Array, count: int) -> Progress:
    """Take `count` entries from `start` on."""

    def cut(leaf: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(leaf, start, count)

    parts = jax.tree.map(cut, replace(progress, epoch=progress.best_epoch))
    return replace(parts, epoch=progress.epoch)


def seed_numbers(config: dict[str, Any]) -> list[int]:
    """List the train seeds of a config: `seed`, `seed + 1`, ..."""
    return [config["seed"] + i for i in range(config["train"]["seeds"])]


def stage_epochs(config: dict[str, Any], stage: Stage) -> int:
    """Return the planned epochs of a stage: its share of `config.train.epochs`, at least one."""
    return max(1, round(stage.share * config["train"]["epochs"]))


def make_plan(
    config: dict[str, Any], players: Players, stage: Stage, *, count: int, seeds: list[int]
) -> StagePlan:
    """Lay out both phases of a stage for a training split of `count` requests.

    Only a stage without a loss of its own has a learned phase.
    """
    settings, size = config["train"], config["train"]["batch_size"]
    batches = -(-count // size)
    learned = None
    phase = partial(_phase, players, stage, config, batches)
    if players.generator is not None and settings["lambda_e"] < settings["epochs"]:
        updates = {name: settings[name] for name in ("generator_updates", "reranker_updates")}
        learned = phase(players.generator, **updates)
    return StagePlan(
        (phase(players.heuristic, generator_updates=0, reranker_updates=1), learned),
        settings["lambda_e"],
        stage_epochs(config, stage),
        settings["patience"],
        size,
        seeds,
    )


def _phase(
    players: Players,
    stage: Stage,
    config: dict[str, Any],
    batches: int,
    noise: Noise | None,
    **updates: int,
) -> Phase:
    plays = updates["generator_updates"] > 0
    divergence = players.divergence if plays else None
    game = Game(players.reranker, noise, divergence, stage.loss, players.objective)
    part = _micro_batch(config["train"], players.layout)
    step = make_step(game, players.optimizer(groups=stage.groups), plays=plays, part=part)
    step, turns = sharding.split_step(players.layout, step), alternate(batches, **updates)
    if not config["train"]["stream"]:
        return Phase(make_epoch(step, seeds=seed_axis()), turns)
    epoch = make_epoch(step, seeds=seed_axis(), take=loader.pick)
    read = partial(sharding.put_batches, players.layout)
    return Phase(streamed(epoch, turns, batches=config["train"]["stream"], put=read), turns)


def _micro_batch(settings: Mapping[str, Any], layout: sharding.Layout) -> int | None:
    """Choose the requests whose activations are held at once; many devices divide a batch alone."""
    if not layout.alone:
        return None
    chosen: int = settings["micro_batch"] or part_size(settings["batch_size"])
    return chosen


def _initial_states(
    place: _Place,
    players: Players,
    before: Progress | None,
    prepared: Prepared,
    entries: list[Entry],
) -> TrainState:
    """Stack the first states of all entries; an entry's state does not depend on the others."""
    example = jax.tree.map(lambda array: np.asarray(array[:1]), prepared.splits["train"].batch)
    optimizer = players.optimizer(groups=place.stage.groups)
    parts = (players.reranker, players.generator, optimizer, example)
    make = partial(sharding.build, players.layout, lambda key: init_state(key, *parts))
    fresh = {seed: make(jax.random.key(seed)) for seed, _ in entries}
    states = stack_states([replace(fresh[e.seed], rate=np.float32(e.rate)) for e in entries])
    if before is None and place.stage.begin is None:
        return states
    learned = states.params["reranker"] if before is None else before.best_params
    return _go_on(states, learned, place.number, place.stage.begin)


@partial(jax.jit, static_argnums=3)
def _go_on(
    states: TrainState, learned: Params, stage: int, begin: Callable[[Params], Params] | None
) -> TrainState:
    """Start a stage from parameters learned before it, with keys of its own."""
    keys = jax.vmap(lambda key: jax.random.fold_in(key, stage))(states.key)
    learned = learned if begin is None else jax.vmap(begin)(learned)
    # Copies, as the states are donated: two leaves may not share what one of them is made of.
    learned = jax.tree.map(jnp.copy, learned)
    return replace(states, params=states.params | {"reranker": learned}, key=keys)


def _restore(folder: Path, fresh: Progress, layout: sharding.Layout) -> Progress:
    """Go on from the last checkpoint, if there is one; it may come from any number of devices."""
    if layout.alone:
        found = checkpoints.restore(folder, "last", fresh)
        return fresh if found is None else found[0]
    whole = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), fresh)
    found = checkpoints.restore(folder, "last", whole)
    if not processes.of_first(np.asarray(found is not None)):
        return fresh
    mine = processes.blank(whole) if found is None else found[0]
    return sharding.place(layout, processes.of_first(mine))


def _saver(
    place: _Place, run: RunFolder, folder: Path, entries: list[Entry], bar: tqdm
) -> Callable[[Progress, Record], None]:
    """Make the end-of-epoch callback: metrics first, then the checkpoint that vouches for them."""
    began, key = time.monotonic(), place.row.key

    def save(progress: Progress, record: Record) -> None:
        nonlocal began
        epoch = int(progress.epoch)
        run.append_metrics(*_records(place, entries, epoch, record))
        improved = bool(np.any(np.asarray(progress.best_epoch) == epoch))
        progress = processes.on_host(progress)
        metadata = {"row": key, "epoch": epoch, "valid": record["valid"].tolist()}
        if improved:
            checkpoints.save(folder, "best", progress.best_params, metadata)
        checkpoints.save(folder, "last", progress, metadata)
        now = time.monotonic()
        seconds = {"epoch": place.offset + epoch, "seconds": now - began}
        run.append_timings({"row": key} | seconds)
        began = now
        if place.last:
            bar.set_postfix_str(f"validation N@K {record['valid'].mean():.4f}")
        bar.update()

    return save


def _records(
    place: _Place, entries: list[Entry], epoch: int, record: Record
) -> list[dict[str, Any]]:
    """Turn an epoch's record into a line per entry, without terms that the row does not have."""
    config = place.row.config
    idle = {"own"} if place.stage.loss is None else {"direct", "denoise"}
    idle |= {"denoise"} if config["noise"]["name"] == NO_NOISE else set()
    names = {"valid": f"validation N@{config['eval']['k']}"}
    extra = {}
    if not place.last:
        names["valid"], extra = "validation minus loss", {"stage": place.stage.name}
    return [
        {"row": place.row.key, "label": place.row.label, **extra, "seed": entry.seed}
        | {"learning_rate_factor": entry.rate, "epoch": place.offset + epoch}
        | {names.get(n, n): float(v[i]) for n, v in record.items() if n not in idle}
        for i, entry in enumerate(entries)
    ]
