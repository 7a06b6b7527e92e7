"""The plan of an experiment: a config as typed, frozen objects, read and checked once.

All later code takes these objects and never reads the config.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dnr_jax.data import DATASETS, CandidateSettings, InteractionData
from dnr_jax.experiment import rows, sections
from dnr_jax.experiment.datasets import DataPlan
from dnr_jax.experiment.rows import Row
from dnr_jax.experiment.sections import Config
from dnr_jax.experiment.settings import DeviceSettings, EvalSettings, RunSettings
from dnr_jax.settings import MOST_INT, unknown


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One table: the data under one candidate protocol, and the rows to train and compare.

    Attributes:
      seed: seed of everything random; train seeds count from it.
      data: what is prepared, and how.
      eval: cut-off and batch size of evaluation.
      devices: the devices that all rows train and score on.
      rows: the rows, in table order.
      start: the model folder that trained rows continue from; None = fresh parameters.
    """

    seed: int
    data: DataPlan
    eval: EvalSettings
    devices: DeviceSettings
    rows: tuple[Row, ...]
    start: Path | None = None

    @property
    def cache(self) -> Path:
        """Folder of everything that can be rebuilt: data and compiled programs."""
        return self.data.cache

    @property
    def retriever(self) -> str:
        """Name of the retriever; logged data does not use it."""
        return self.data.retriever

    @property
    def protocol(self) -> str:
        """Name of the candidate protocol."""
        return self.data.candidates.name


def make_plan(config: Config) -> tuple[Plan, ...]:
    """Turn a config into plans, one for each retriever and protocol.

    They are listed in `config.retriever.name` and `config.candidates.name`.

    Args:
      config: what differs from the defaults, as nested plain data or a `ConfigDict`; see
        `configs/`.

    Raises:
      ValueError: a name or a value is wrong, whether or not a row reads it; the message names the
        knob, its value and what it must be.
    """
    config = sections.complete(config.to_dict() if isinstance(config, ConfigDict) else config)
    parts = [
        part for one in _each(config, "retriever") for part in _each(one, "candidates", "protocol")
    ]
    return tuple(_plan(part) for part in parts)


def _each(config: Config, section: str, kind: str = "") -> list[dict[str, Any]]:
    """Make one config for each name that the section lists, separated by commas."""
    listed = config[section]["name"]
    names = [name.strip() for name in listed.split(",")] if isinstance(listed, str) else [listed]
    if len(set(names)) < len(names):
        word = kind or section
        raise ValueError(f"config.{section}.name lists a {word} twice: {listed}")
    return [{**config, section: config[section] | {"name": name}} for name in names]


def _plan(config: Config) -> Plan:
    sections.check(config)
    run, scored = sections.read_run(config), sections.read_section(config, "eval")
    table = rows.table(config)
    last = max(row.seeds[-1] for row in table)
    if last > MOST_INT:
        raise ValueError(
            f"config.seed is {run.seed}: the last train seed, {last}, must be at most {MOST_INT}"
        )
    return Plan(
        seed=run.seed,
        data=_data(config, run, scored),
        eval=scored,
        devices=sections.read_section(config, "devices"),
        rows=table,
        start=Path(run.start).expanduser() if run.start else None,
    )


def _data(config: Config, run: RunSettings, scored: EvalSettings) -> DataPlan:
    data, retriever = sections.read_data(config), sections.read_choice(config, sections.RETRIEVER)
    candidates: CandidateSettings = sections.read_section(config, "candidates")
    assert retriever is not None
    known = DATASETS[data.name].protocols
    if candidates.name not in known:
        raise ValueError(
            f"config.candidates.name (for {data.name}): "
            f"{unknown('protocol', candidates.name, known)}"
        )
    if candidates.size <= scored.k:
        raise ValueError(
            f"config.candidates.size is {candidates.size}, config.eval.k is {scored.k}: there must "
            "be more candidates than places in the shown list, or there is nothing to rerank"
        )
    if candidates.train_share < 1 and not isinstance(DATASETS[data.name], InteractionData):
        raise ValueError(
            f"config.candidates.train_share is {candidates.train_share}, but {data.name} has "
            "logged requests: leave it at 1 and give a shorter log"
        )
    return DataPlan(
        name=data.name,
        settings=data.settings,
        candidates=candidates,
        retriever=retriever.name,
        retriever_settings=retriever.settings,
        k=scored.k,
        seed=run.seed,
        cache=Path(run.cache).expanduser(),
    )
