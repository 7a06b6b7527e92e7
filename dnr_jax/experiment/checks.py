"""Refuse a config that cannot work, before any long work begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dnr_jax.data import DATASETS
from dnr_jax.data.store import Prepared
from dnr_jax.divergences import DIVERGENCES
from dnr_jax.experiment.players import NO_NOISE
from dnr_jax.experiment.rows import Row, unknown
from dnr_jax.nn.precision import DTYPES
from dnr_jax.noise import DRAWS, NOISES
from dnr_jax.rerankers import RERANKERS

LOSSES = ("own", "bce")
LEARNED = [name for name in NOISES if name not in DRAWS]


def check(config: Mapping[str, Any], rows: list[Row]) -> None:
    """Check names and ranges of a config and of each of its rows.

    Raises:
      ValueError: naming the first knob that is wrong, what it may be, and the nearest known name.
    """
    _known("data.name", config["data"]["name"], DATASETS)
    protocols = DATASETS[config["data"]["name"]].protocols
    _known(
        f"candidates.name (for {config['data']['name']})", config["candidates"]["name"], protocols
    )
    for names in (config, *(row.config for row in rows)):
        _known("compute.dtype", names["compute"]["dtype"], DTYPES)
        _known("reranker.name", names["reranker"]["name"], RERANKERS)
        _known("noise.name", names["noise"]["name"], [*DRAWS, NO_NOISE])
        _known("generator.name", names["generator"]["name"], [*LEARNED, NO_NOISE])
        _known("divergence.name", names["divergence"]["name"], DIVERGENCES)
    _known("train.loss", config["train"]["loss"], LOSSES)
    _check_ranges(config)
    for player, settings in config["optim"].items():
        _check_optimizer(player, settings)


def check_sizes(config: Mapping[str, Any], prepared: Prepared) -> None:
    """Check what can only be known once the data is there.

    Raises:
      ValueError: a training batch is larger than the training split.
    """
    requests, batch = len(prepared.splits["train"].request_id), config["train"]["batch_size"]
    if batch > requests:
        raise ValueError(
            f"config.train.batch_size is {batch}, but the training split has only {requests} "
            f"requests: choose at most {requests}"
        )


def _check_ranges(config: Mapping[str, Any]) -> None:
    k, size = config["eval"]["k"], config["candidates"]["size"]
    if not 1 <= k < size:
        raise ValueError(
            f"config.candidates.size is {size}, config.eval.k is {k}: there must be more "
            "candidates than places in the shown list, or there is nothing to rerank"
        )
    at_least_one = {
        "train": ("epochs", "batch_size", "seeds", "generator_updates", "reranker_updates"),
        "eval": ("batch_size",),
    }
    for section, names in at_least_one.items():
        for name in names:
            _at_least(f"{section}.{name}", config[section][name], 1)
    for name in ("lambda_e", "patience", "stream", "micro_batch"):
        _at_least(f"train.{name}", config["train"][name], 0)
    batch, part = config["train"]["batch_size"], config["train"]["micro_batch"]
    if part and batch % part:
        raise ValueError(
            f"config.train.micro_batch is {part}, which does not divide config.train.batch_size "
            f"{batch}: choose a divisor, or 0"
        )
    for name, value in config["objective"].items():
        _at_least(f"objective.{name}", value, 0)
    _at_least("seed", config["seed"], 0)
    _at_least("devices.count", config["devices"]["count"], 0)


def _check_optimizer(player: str, settings: Mapping[str, float]) -> None:
    allowed = {
        "learning_rate": ("above 0", lambda v: v > 0),
        "weight_decay": ("0 or more", lambda v: v >= 0),
        "clip": ("above 0", lambda v: v > 0),
        "b1": ("at least 0 and below 1", lambda v: 0 <= v < 1),
        "b2": ("at least 0 and below 1", lambda v: 0 <= v < 1),
        "eps": ("above 0", lambda v: v > 0),
        "decay_factor": ("above 0", lambda v: v > 0),
        "decay_every": ("1 or more", lambda v: v >= 1),
    }
    for name, value in settings.items():
        words, holds = allowed[name]
        if not holds(value):
            raise ValueError(f"config.optim.{player}.{name} is {value}: it must be {words}")


def _at_least(knob: str, value: float, least: int) -> None:
    if not value >= least:
        raise ValueError(f"config.{knob} is {value}: it must be {least} or more")


def _known(knob: str, name: str, known: Any) -> None:
    if name not in known:
        raise ValueError(f"config.{knob}: {unknown('choice', name, known)}")
