"""Train one row of the table, seeds together, from wherever its last checkpoint left it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

from dnr_jax.data.store import Prepared
from dnr_jax.evaluation import mean_ndcg, score_split
from dnr_jax.experiment.players import NO_NOISE, Players, Score
from dnr_jax.experiment.rows import Row
from dnr_jax.io import checkpoints
from dnr_jax.io.run_folder import RunFolder
from dnr_jax.training.epoch import make_epoch, schedule, seed_axis, stack_states
from dnr_jax.training.phases import Phase, Plan, Progress, Record, finished, fit, start
from dnr_jax.training.step import Game, TrainState, init_state, make_step
from dnr_jax.types import Array, Batch, Noise, Params


def train(row: Row, players: Players, prepared: Prepared, run: RunFolder) -> Progress:
    """Train the row's players to the end of its plan, checkpointing after every epoch.

    A row that was trained before comes back from its checkpoint without training.

    Raises:
      ValueError: the batch does not fit the training split, or a checkpoint is torn beyond repair.
      NonFiniteError: a loss or gradient is not finite; the last good checkpoint is kept.
    """
    config = row.config
    seeds = seed_numbers(config)
    data = jax.device_put(_plain(prepared.splits["train"].batch))
    plan = make_plan(config, players, count=data.scores.shape[0], seeds=seeds)
    folder = run.checkpoints(row.key)
    progress = _restore(folder, start(_initial_states(players, data, config, seeds), len(seeds)))
    run.rewind_metrics(row.key, int(progress.epoch))
    if finished(progress, plan):
        return progress
    with tqdm(total=plan.epochs, initial=int(progress.epoch), desc=row.label, unit="epoch") as bar:
        save = _saver(row, run, seeds, bar)
        return fit(progress, data, plan, validator(players.score, prepared, config), save)


def seed_numbers(config: dict[str, Any]) -> list[int]:
    """List the train seeds of a config: `seed`, `seed + 1`, ..."""
    return [config["seed"] + i for i in range(config["train"]["seeds"])]


def make_plan(config: dict[str, Any], players: Players, *, count: int, seeds: list[int]) -> Plan:
    """Lay out both phases for a training split of `count` requests."""
    settings, size = config["train"], config["train"]["batch_size"]
    batches = -(-count // size)
    learned = None
    if players.generator is not None and settings["lambda_e"] < settings["epochs"]:
        updates = {name: settings[name] for name in ("generator_updates", "reranker_updates")}
        learned = _phase(players, config, players.generator, batches, **updates)
    heuristic = _phase(
        players, config, players.heuristic, batches, generator_updates=0, reranker_updates=1
    )
    return Plan(
        (heuristic, learned),
        settings["lambda_e"],
        settings["epochs"],
        settings["patience"],
        size,
        seeds,
    )


def validator(
    score: Score, prepared: Prepared, config: dict[str, Any]
) -> Callable[[Params], Array]:
    """Make the map from stacked reranker parameters to N@K on the validation split, `[S]`."""
    valid = jax.device_put(_plain(prepared.splits["valid"].batch))
    return partial(_validate, score, config["eval"]["batch_size"], config["eval"]["k"], batch=valid)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _validate(score: Score, batch_size: int, k: int, params: Params, batch: Batch) -> Array:
    judged = batch.weights > 0

    def one(seed: Params) -> Array:
        logits = score_split(score, seed, batch, batch_size=batch_size)
        return mean_ndcg(logits, batch.labels, judged, k)

    return jax.lax.map(one, params)


def _phase(
    players: Players, config: dict[str, Any], noise: Noise | None, batches: int, **updates: int
) -> Phase:
    plays = updates["generator_updates"] > 0
    divergence = players.divergence if plays else None
    game = Game(players.reranker, noise, divergence, players.loss, **config["objective"])
    step = make_step(game, players.optimizer, plays=plays)
    return Phase(make_epoch(step, seeds=seed_axis()), schedule(batches, **updates))


def _initial_states(
    players: Players, data: Batch, config: dict[str, Any], seeds: list[int]
) -> TrainState:
    """Stack the first states of all seeds; a seed's state does not depend on the others."""
    example = jax.tree.map(lambda array: array[:1], data)
    parts = (players.reranker, players.generator, players.optimizer, example)
    return stack_states([init_state(jax.random.key(seed), *parts) for seed in seeds])


def _restore(folder: Any, fresh: Progress) -> Progress:
    found = checkpoints.restore(folder, "last", fresh)
    return fresh if found is None else found[0]


def _saver(
    row: Row, run: RunFolder, seeds: list[int], bar: tqdm
) -> Callable[[Progress, Record], None]:
    """Make the end-of-epoch callback: metrics first, then the checkpoint that vouches for them."""
    folder, began = run.checkpoints(row.key), time.monotonic()

    def save(progress: Progress, record: Record) -> None:
        nonlocal began
        epoch = int(progress.epoch)
        run.append_metrics(*_records(row, seeds, epoch, record))
        improved = bool(np.any(np.asarray(progress.best_epoch) == epoch))
        metadata = {"row": row.key, "epoch": epoch, "valid": record["valid"].tolist()}
        if improved:
            checkpoints.save(folder, "best", progress.best_params, metadata)
        checkpoints.save(folder, "last", progress, metadata)
        now = time.monotonic()
        run.append_timings({"row": row.key, "epoch": epoch, "seconds": now - began})
        began = now
        bar.set_postfix_str(f"validation N@K {record['valid'].mean():.4f}")
        bar.update()

    return save


def _records(row: Row, seeds: list[int], epoch: int, record: Record) -> list[dict[str, Any]]:
    """Turn an epoch's record into a line per seed, without terms that the row does not have."""
    idle = {"denoise"} if row.config["noise"]["name"] == NO_NOISE else set()
    names = {"valid": f"validation N@{row.config['eval']['k']}"}
    return [
        {"row": row.key, "label": row.label, "seed": seed, "epoch": epoch}
        | {names.get(n, n): float(v[i]) for n, v in record.items() if n not in idle}
        for i, seed in enumerate(seeds)
    ]


def _plain(batch: Batch) -> Batch:
    """Read memory-mapped arrays whole: this data set fits the device."""
    return jax.tree.map(np.ascontiguousarray, batch)
