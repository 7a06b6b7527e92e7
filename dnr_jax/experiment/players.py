"""From a row's config to its players: the only place that joins tables, config and data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import optax

from dnr_jax import divergences, noise, rerankers
from dnr_jax.data.store import Prepared
from dnr_jax.noise.beta import fit_beta
from dnr_jax.noise.resampled import score_pools
from dnr_jax.training.optimizers import OptimizerSettings, two_player_optimizer
from dnr_jax.types import Array, Divergence, FeatureSpec, Noise, Params, Request, Reranker, apply

Score = Callable[[Params, Request, Array], Array]

NO_NOISE = "none"
TRIVIAL = ("random", "popularity", "retriever", "reversed")
# Observed scores kept of each label for resampling: enough for quantiles to 0.002.
POOL_LIMIT = 65536


class Players(NamedTuple):
    """What one row trains and scores with.

    Attributes:
      reranker: the model.
      score: its `(params, request, scores) -> logits` without dropout; rows of the same reranker
        share one object, and so one compiled program.
      heuristic: noise of phase 1; None for rows without denoising.
      generator: noise of phase 2; None for rows that never learn one.
      divergence: the estimator of L_x.
      optimizer: both players' optimisers.
    """

    reranker: Reranker
    score: Score
    heuristic: Noise | None
    generator: Noise | None
    divergence: Divergence
    optimizer: optax.GradientTransformationExtraArgs


def build(config: Mapping[str, Any], prepared: Prepared) -> Players:
    """Build the players of a row.

    Raises:
      ValueError: a name is in no table, or a value is outside its range.
    """
    knobs = dict(config["divergence"])
    name, conditional = knobs.pop("name"), knobs.pop("conditional")
    options = {key: knobs[key] for key in divergences.keywords(name)}
    train = prepared.splits["train"]
    batches = -(-len(train.request_id) // config["train"]["batch_size"])
    reranker, score = build_reranker(config, prepared)
    heuristic, generator = _noises(config, prepared)
    return Players(
        reranker,
        score,
        heuristic,
        generator,
        divergences.build(name, conditional=conditional, **options),
        two_player_optimizer(*(_optimizer(config, p, batches) for p in ("reranker", "generator"))),
    )


def build_reranker(config: Mapping[str, Any], prepared: Prepared) -> tuple[Reranker, Score]:
    """Build the reranker of a row, trivial ones included, and its scoring function.

    Raises:
      ValueError: the name is in no table, or a knob is outside its range.
    """
    knobs = dict(config["reranker"])
    name = knobs.pop("name")
    if name in TRIVIAL:
        own = {"random": {"seed": config["seed"]}, "popularity": _popularity(prepared)}
        reranker = rerankers.build(name, spec=prepared.spec, **own.get(name, {}))
        return reranker, partial(apply, reranker)
    spec = json.dumps(prepared.spec._asdict() | {"sizes": dict(prepared.spec.sizes)})
    return _shared_reranker(name, spec, json.dumps(knobs, sort_keys=True))


@lru_cache
def _shared_reranker(name: str, spec: str, knobs: str) -> tuple[Reranker, Score]:
    """Build a reranker once for all rows with the same knobs: a second one would recompile."""
    fields = json.loads(spec)
    columns = (tuple(fields[k]) for k in ("user", "context", "history", "item"))
    reranker = rerankers.build(
        name, spec=FeatureSpec(*columns, sizes=fields["sizes"]), **json.loads(knobs)
    )
    return reranker, partial(apply, reranker)


def _popularity(prepared: Prepared) -> dict[str, np.ndarray]:
    return {"item_popularity": np.asarray(prepared.item_popularity)}


def _noises(config: Mapping[str, Any], prepared: Prepared) -> tuple[Noise | None, Noise | None]:
    """Build the heuristic family and the learned one that is fed with the same fresh noise."""
    name = config["noise"]["name"]
    if name == NO_NOISE:
        return None, None
    knobs = dict(config["noise"]) | _fitted(config, prepared)

    def chosen(table: Mapping[str, Callable[..., Any]], key: str, known: dict) -> dict[str, Any]:
        return {word: known[word] for word in noise.keywords(table, key)}

    heuristic = noise.build(name, **chosen(noise.NOISES, name, knobs))
    learned = config["generator"]["name"]
    if learned == NO_NOISE:
        return heuristic, None
    base = noise.build_draw(name, **chosen(noise.DRAWS, name, knobs))
    knobs |= config["generator"] | {"spec": prepared.spec, "base": base}
    return heuristic, noise.build(learned, **chosen(noise.NOISES, learned, knobs))


def _fitted(config: Mapping[str, Any], prepared: Prepared) -> dict[str, Any]:
    """Take from the training split what a noise family learns before training begins."""
    knobs, batch = config["noise"], prepared.splits["train"].batch
    observed = tuple(np.asarray(a) for a in (batch.scores, batch.labels, batch.weights))
    if knobs["name"] == "resampled":
        return {"pools": score_pools(*observed, limit=POOL_LIMIT, seed=config["seed"])}
    if knobs["name"] == "beta" and knobs["fit"]:
        alpha, beta = fit_beta(*observed, lambda_c=knobs["lambda_c"])
        return {"alpha": alpha, "beta": beta}
    return {}


def _optimizer(config: Mapping[str, Any], player: str, batches: int) -> OptimizerSettings:
    knobs = dict(config["optim"][player])
    return OptimizerSettings(decay_steps=knobs.pop("decay_every") * batches, **knobs)
