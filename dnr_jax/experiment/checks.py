"""Refuse a config that cannot work, before any long work begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dnr_jax.data import DATASETS
from dnr_jax.data.store import Prepared
from dnr_jax.divergences import DIVERGENCES
from dnr_jax.experiment.flat import pick
from dnr_jax.experiment.players import NO_NOISE
from dnr_jax.experiment.rows import Row, unknown
from dnr_jax.nn.precision import DTYPES
from dnr_jax.noise import GENERATORS, NOISES
from dnr_jax.objectives import ObjectiveSettings
from dnr_jax.rerankers import RERANKERS
from dnr_jax.training.optimizers import OptimizerSettings
from dnr_jax.training.settings import TrainSettings


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
        _known("noise.name", names["noise"]["name"], [*NOISES, NO_NOISE])
        _known("generator.name", names["generator"]["name"], [*GENERATORS, NO_NOISE])
        _known("divergence.name", names["divergence"]["name"], DIVERGENCES)
        _check_settings(names)
    _check_ranges(config)


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
    _at_least("eval.batch_size", config["eval"]["batch_size"], 1)
    _at_least("seed", config["seed"], 0)
    _at_least("devices.count", config["devices"]["count"], 0)


def _check_settings(config: Mapping[str, Any]) -> None:
    """Make the settings that the config or a row chooses: this checks them."""
    pick(TrainSettings, "train", config["train"])
    pick(ObjectiveSettings, "objective", config["objective"])
    for player, knobs in config["optim"].items():
        pick(OptimizerSettings, f"optim.{player}", knobs)
    chosen = {"noise": NOISES, "generator": GENERATORS, "divergence": DIVERGENCES}
    for section, table in chosen.items():
        if config[section]["name"] != NO_NOISE:
            pick(table[config[section]["name"]].settings, section, config[section])


def _at_least(knob: str, value: float, least: int) -> None:
    if not value >= least:
        raise ValueError(f"config.{knob} is {value}: it must be {least} or more")


def _known(knob: str, name: str, known: Any) -> None:
    if name not in known:
        raise ValueError(f"config.{knob}: {unknown('choice', name, known)}")
