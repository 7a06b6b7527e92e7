"""Build everything that a row of the plan trains and scores with, from tables, plan and data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import optax

from dnr_jax.data.store import Prepared
from dnr_jax.divergences import DIVERGENCES
from dnr_jax.experiment import start
from dnr_jax.experiment.plan import Plan
from dnr_jax.experiment.rows import Row
from dnr_jax.experiment.start import Graft, Start
from dnr_jax.io.run_folder import RunFolder
from dnr_jax.nn.item_tables import padded
from dnr_jax.nn.precision import compute_in
from dnr_jax.noise import GENERATORS, NOISES, Observed
from dnr_jax.objectives import LOSSES
from dnr_jax.rerankers import RERANKERS
from dnr_jax.training import sharding
from dnr_jax.training.optimizers import two_player_optimizer
from dnr_jax.training.parts import part_size
from dnr_jax.training.settings import TrainSettings
from dnr_jax.training.sharding import Apply, DeviceLayout
from dnr_jax.types import Batch, Divergence, Noise, Reranker, Stage, Task, apply, rank

# How a model is trained as a scorer: by the losses of DNR, or by L_direct alone without noise.
PLAIN = (Stage("train", None),)


class Scorers(NamedTuple):
    """A reranker and its two scorers: by logits, and by the order used in deployment."""

    reranker: Reranker
    apply: Apply
    rank: Apply


class Assembly(NamedTuple):
    """What one row trains and scores with.

    Attributes:
      reranker: the model.
      score: its `(params, request, scores) -> logits` without dropout, or the order of the lists
        that it builds; rows of the same reranker share one object, and so one compiled program.
      arranges: whether `score` is such an order.
      log_odds: whether the sigmoid of `score` estimates the probability of a positive.
      stages: its training stages in order.
      heuristic: noise of phase 1; None for rows without denoising.
      generator: noise of phase 2; None for rows that never learn one.
      divergence: the estimator of L_x.
      optimizer: makes both players' optimisers from the keyword `groups`.
      layout: the devices used for training and scoring.
      task: what the models know of the data.
      graft: puts the parameters of an earlier model into fresh ones; None without such a model.
    """

    reranker: Reranker
    score: Apply
    arranges: bool
    log_odds: bool
    stages: tuple[Stage, ...]
    heuristic: Noise | None
    generator: Noise | None
    divergence: Divergence
    optimizer: Callable[..., optax.GradientTransformationExtraArgs]
    layout: DeviceLayout
    task: Task
    graft: Graft | None = None


def assemble(plan: Plan, prepared: Prepared) -> list[Assembly]:
    """Build what every row needs; rows with the same reranker share it.

    Raises:
      ValueError: a model learns from the displayed order, or rows read first-stage scores, and the
        data has none; or a row cannot continue from the earlier model, see `start.make_graft`.
    """
    _check_scores(plan, prepared)
    layout = sharding.make_layout(count=plan.devices.count, shard_tables=plan.devices.shard_tables)
    task = make_task(plan, prepared, layout)
    wanted = {(row.reranker, row.compute): row for row in plan.rows}
    models = {key: _model(row, task, layout) for key, row in wanted.items()}
    parts = [
        _assembly(row, models[row.reranker, row.compute], task, prepared, layout)
        for row in plan.rows
    ]
    if plan.start is None:
        return parts
    earlier = start.read(plan.start)
    return [
        part._replace(graft=_graft(earlier, row, part, prepared)) if row.trains else part
        for row, part in zip(plan.rows, parts, strict=True)
    ]


def make_task(plan: Plan, prepared: Prepared, layout: DeviceLayout) -> Task:
    """Collect what models may know about the data before they see a request."""
    spec = sharding.rounded(prepared.spec, layout)
    items = spec.sizes[spec.item[0]]
    return Task(
        spec=spec,
        slate_size=plan.eval.k,
        item_popularity=padded(prepared.item_popularity, items),
        item_vectors=padded(prepared.item_vectors, items),
        seed=plan.seed,
    )


def _model(row: Row, task: Task, layout: DeviceLayout) -> Scorers:
    reranker = RERANKERS[row.reranker.name].build(task, row.reranker.settings)
    reranker = compute_in(reranker, row.compute.dtype)
    scorers = (sharding.split_score(layout, partial(f, reranker)) for f in (apply, rank))
    return Scorers(reranker, *scorers)


def _assembly(
    row: Row, model: Scorers, task: Task, prepared: Prepared, layout: DeviceLayout
) -> Assembly:
    batches = -(-len(prepared.splits["train"].request_id) // row.train.batch_size)
    heuristic, generator = _noises(row, task, prepared)
    # DNR and the equal-loss comparison train and rank by the logits: there a model is a scorer.
    own = (row.train.loss == "own" and heuristic is None) or not row.trains
    if own:
        _check_slates(row, prepared)
    arranges = own and model.reranker.arrange is not None
    return Assembly(
        reranker=model.reranker,
        score=model.rank if arranges else model.apply,
        arranges=arranges,
        log_odds=not arranges and _log_odds(row, model.reranker, own=own),
        stages=(model.reranker.stages or PLAIN) if own else PLAIN,
        heuristic=heuristic,
        generator=generator,
        divergence=DIVERGENCES[row.divergence.name].build(row.divergence.settings),
        optimizer=partial(
            two_player_optimizer,
            row.optim.reranker,
            row.optim.generator,
            steps_per_epoch=_updates(row.train, batches),
        ),
        layout=layout,
        task=task,
    )


def _updates(train: TrainSettings, batches: int) -> tuple[int, int]:
    """Count both players' updates in an epoch of phase 2, see `epoch.alternate`."""
    return batches, -(-batches // train.reranker_updates) * train.generator_updates


def _log_odds(row: Row, reranker: Reranker, *, own: bool) -> bool:
    if own and reranker.stages:
        return reranker.log_odds
    return LOSSES[row.objective.loss].log_odds


def _graft(earlier: Start, row: Row, parts: Assembly, prepared: Prepared) -> Graft:
    example = first_request(prepared)
    return start.make_graft(earlier, row, parts.reranker, parts.task, prepared.encoders, example)


def first_request(prepared: Prepared) -> Batch:
    """Return a batch of one training request; its shapes determine those of the parameters."""
    first: Batch = jax.tree.map(lambda array: np.asarray(array[:1]), prepared.splits["train"].batch)
    return first


def _check_slates(row: Row, prepared: Prepared) -> None:
    """Refuse a model that learns from the displayed order if the data has none."""
    name, slates = row.reranker.name, prepared.splits["train"].batch.slate
    if RERANKERS[name].needs_slate and not np.any(np.asarray(slates) >= 0):
        raise ValueError(
            f"reranker {name!r} learns from the order in which items were shown, but no training "
            "request has one (every slate is -1): leave it out of config.table, give data with "
            "displayed positions, or train it as a scorer with --config.train.loss=direct"
        )


def _check_scores(plan: Plan, prepared: Prepared) -> None:
    """Refuse rows that read first-stage scores if the data has none."""
    if np.any(prepared.splits["train"].batch.scores):
        return
    reading = [row.key for row in plan.rows if row.reads_scores]
    if reading:
        left = ",".join(row.key for row in plan.rows if not row.reads_scores)
        raise ValueError(
            f"config.table has rows that read a first stage's scores ({', '.join(reading)}), but "
            f"the data has none, every score is 0: set --config.table={left or 'random,plain'}"
        )


def _noises(row: Row, task: Task, prepared: Prepared) -> tuple[Noise | None, Noise | None]:
    """Build the heuristic family and the learned one, which takes the same fresh noise as input."""
    if row.noise is None:
        return None, None
    entry, settings = NOISES[row.noise.name], row.noise.settings
    batch = prepared.splits["train"].batch
    observed = Observed(*(np.asarray(a) for a in (batch.scores, batch.labels, batch.weights)))
    fitted = entry.fit and entry.fit(settings, observed, task.seed)
    heuristic = entry.build(settings, fitted)
    if row.generator is None:
        return heuristic, None
    base = entry.draw(settings, fitted)
    made = GENERATORS[row.generator.name].build(task, base, row.generator.settings)
    return heuristic, made


class Job(NamedTuple):
    """One row to be trained and scored: the plan, what was built for it, its data and folder."""

    plan: Plan
    row: Row
    parts: Assembly
    prepared: Prepared
    run: RunFolder

    @property
    def scored_at_once(self) -> int:
        """Requests scored at once: few on a CPU; over several devices they are split anyway."""
        size = self.plan.eval.batch_size
        return part_size(size) if self.parts.layout.alone else size
