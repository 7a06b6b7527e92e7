"""From a row's config to its players: the only place that joins tables, config and data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import optax

from dnr_jax.data.store import Prepared
from dnr_jax.divergences import DIVERGENCES
from dnr_jax.experiment.flat import pick
from dnr_jax.experiment.rows import Row
from dnr_jax.nn.precision import compute_in
from dnr_jax.noise import GENERATORS, NOISES, Observed
from dnr_jax.objectives import ObjectiveSettings
from dnr_jax.rerankers import RERANKERS
from dnr_jax.training import sharding
from dnr_jax.training.optimizers import OptimizerSettings, two_player_optimizer
from dnr_jax.training.sharding import Layout, Scorer
from dnr_jax.types import Divergence, Noise, Reranker, Stage, Task, apply, rank

NO_NOISE = "none"
TRIVIAL = ("random", "popularity", "retriever", "reversed", "mmr")
# How a model is trained as a scorer: by the losses of DNR, or by L_direct alone without noise.
PLAIN = (Stage("train", None),)


class Model(NamedTuple):
    """A reranker and its two scorers: by logits, and in the order as deployed."""

    reranker: Reranker
    apply: Scorer
    rank: Scorer


class Players(NamedTuple):
    """What one row trains and scores with.

    Attributes:
      reranker: the model.
      score: its `(params, request, scores) -> logits` without dropout, or the order of the lists
        that it builds; rows of the same reranker share one object, and so one compiled program.
      arranges: whether `score` is such an order, which is no probability.
      stages: what it is trained by, one after the other.
      heuristic: noise of phase 1; None for rows without denoising.
      generator: noise of phase 2; None for rows that never learn one.
      divergence: the estimator of L_x.
      objective: the losses and their weights.
      optimizer: makes both players' optimisers of the keyword `groups`.
      layout: the devices that they train and score on.
    """

    reranker: Reranker
    score: Scorer
    arranges: bool
    stages: tuple[Stage, ...]
    heuristic: Noise | None
    generator: Noise | None
    divergence: Divergence
    objective: ObjectiveSettings
    optimizer: Callable[..., optax.GradientTransformationExtraArgs]
    layout: Layout


def build_all(rows: list[Row], prepared: Prepared) -> list[Players]:
    """Build the players of every row, one reranker for all rows that want the same one.

    Raises:
      ValueError: a name is in no table, or a value is outside its range.
    """
    layout = sharding.make_layout(**rows[0].config["devices"])
    prepared = prepared._replace(spec=sharding.rounded(prepared.spec, layout))
    models: dict[str, Model] = {}

    def model(config: Mapping[str, Any]) -> Model:
        knobs = json.dumps([config["reranker"], config["compute"]], sort_keys=True)
        if knobs not in models:
            models[knobs] = _model(config, prepared, layout)
        return models[knobs]

    return [_players(row.config, prepared, model(row.config), layout) for row in rows]


def _players(
    config: Mapping[str, Any], prepared: Prepared, model: Model, layout: Layout
) -> Players:
    distance = DIVERGENCES[config["divergence"]["name"]]
    batches = -(-len(prepared.splits["train"].request_id) // config["train"]["batch_size"])
    heuristic, generator = _noises(config, prepared)
    # DNR and the equal-loss comparison train and rank by the logits: there a model is a scorer.
    own = config["train"]["loss"] == "own" and heuristic is None
    own = own or config["reranker"]["name"] in TRIVIAL
    stages = (model.reranker.stages or PLAIN) if own else PLAIN
    arranges = own and model.reranker.arrange is not None
    if own:
        _check_slates(config, prepared)
    return Players(
        model.reranker,
        model.rank if arranges else model.apply,
        arranges,
        stages,
        heuristic,
        generator,
        distance.build(pick(distance.settings, "divergence", config["divergence"])),
        pick(ObjectiveSettings, "objective", config["objective"]),
        partial(
            two_player_optimizer,
            *(
                pick(OptimizerSettings, f"optim.{player}", config["optim"][player])
                for player in ("reranker", "generator")
            ),
            steps_per_epoch=batches,
        ),
        layout,
    )


def _model(config: Mapping[str, Any], prepared: Prepared, layout: Layout) -> Model:
    """Build a model from those knobs of `config.reranker` that it has, and its two scorers."""
    task = Task(
        prepared.spec,
        config["eval"]["k"],
        np.asarray(prepared.item_popularity),
        np.asarray(prepared.item_vectors),
        config["seed"],
    )
    entry = RERANKERS[config["reranker"]["name"]]
    reranker = entry.build(task, pick(entry.settings, "reranker", config["reranker"]))
    reranker = compute_in(reranker, config["compute"]["dtype"])
    scorers = (sharding.split_score(layout, partial(f, reranker)) for f in (apply, rank))
    return Model(reranker, *scorers)


def _check_slates(config: Mapping[str, Any], prepared: Prepared) -> None:
    """Refuse a model that learns from the displayed order where the data has none."""
    name, slates = config["reranker"]["name"], prepared.splits["train"].batch.slate
    if RERANKERS[name].needs_slate and not np.any(np.asarray(slates) >= 0):
        raise ValueError(
            f"reranker {name!r} learns from the order in which items were shown, but no training "
            "request has one (every slate is -1): leave it out of config.table, give data with "
            "displayed positions, or train it as a scorer with --config.train.loss=bce"
        )


def _noises(config: Mapping[str, Any], prepared: Prepared) -> tuple[Noise | None, Noise | None]:
    """Build the heuristic family and the learned one that is fed with the same fresh noise."""
    name = config["noise"]["name"]
    if name == NO_NOISE:
        return None, None
    entry = NOISES[name]
    settings = pick(entry.settings, "noise", config["noise"])
    batch = prepared.splits["train"].batch
    observed = Observed(*(np.asarray(a) for a in (batch.scores, batch.labels, batch.weights)))
    fitted = entry.fit and entry.fit(settings, observed, config["seed"])
    heuristic = entry.build(settings, fitted)
    learned = config["generator"]["name"]
    if learned == NO_NOISE:
        return heuristic, None
    generator = GENERATORS[learned]
    own = pick(generator.settings, "generator", config["noise"], config["generator"])
    return heuristic, generator.build(Task(prepared.spec), entry.draw(settings, fitted), own)
