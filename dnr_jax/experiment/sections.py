"""The sections of a config: their defaults, and how each is read into settings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dnr_jax import settings
from dnr_jax.data import DATASETS, CandidateSettings
from dnr_jax.divergences import DIVERGENCES, DivergenceSettings
from dnr_jax.experiment.settings import (
    ComputeSettings,
    DeviceSettings,
    EvalSettings,
    OptimSettings,
    RunSettings,
)
from dnr_jax.nn.trunk import Trunk
from dnr_jax.noise import GENERATORS, NOISES, GeneratorSettings, Mixing
from dnr_jax.objectives import ObjectiveSettings
from dnr_jax.rerankers import RERANKERS
from dnr_jax.retrievers import RETRIEVERS, RetrieverSettings
from dnr_jax.settings import Settings
from dnr_jax.training.settings import TrainSettings

Config = Mapping[str, Any]
# The name for choosing no entry.
NONE = "none"

SECTIONS: dict[str, type[Settings]] = {
    "candidates": CandidateSettings,
    "objective": ObjectiveSettings,
    "optim": OptimSettings,
    "train": TrainSettings,
    "devices": DeviceSettings,
    "compute": ComputeSettings,
    "eval": EvalSettings,
}


class Choice(NamedTuple):
    """A section whose `name` chooses an entry of a table.

    It also holds the knobs that entries share, such as `config.reranker.width`. Knobs of a single
    entry are in the section's plural, under the entry's name: `config.rerankers.dcdr.beam`.

    Attributes:
      section: its name.
      table: the entries; each has a class of settings, `settings`.
      shared: by section, the class of the knobs that an entry reads there.
      default: the entry chosen unless a config says otherwise.
      optional: whether `NONE` may be chosen too.
    """

    section: str
    table: Mapping[str, Any]
    shared: dict[str, type[Settings]]
    default: str
    optional: bool = False

    @property
    def plural(self) -> str:
        """The section of the knobs of single entries."""
        return f"{self.section}s"


RERANKER = Choice("reranker", RERANKERS, {"reranker": Trunk}, "prm")
NOISE = Choice("noise", NOISES, {"noise": Mixing}, "beta", optional=True)
GENERATOR = Choice(
    "generator",
    GENERATORS,
    {"generator": GeneratorSettings, "noise": Mixing},
    "learned_direct",
    optional=True,
)
DIVERGENCE = Choice("divergence", DIVERGENCES, {"divergence": DivergenceSettings}, "density")
RETRIEVER = Choice(
    "retriever", RETRIEVERS, {"retriever": RetrieverSettings}, "matrix_factorization"
)
CHOICES = (RETRIEVER, RERANKER, NOISE, GENERATOR, DIVERGENCE)


class Chosen(NamedTuple):
    """An entry of a table by its name, and its settings."""

    name: str
    settings: Any


def defaults(data_name: str) -> dict[str, Any]:
    """Return the whole config of a data set, every knob at its default; no rows and no table.

    Raises:
      ValueError: there is no such data set.
    """
    dataset = _entry("data", data_name, DATASETS)
    config: dict[str, Any] = settings.plain(RunSettings()) | {"table": "", "rows": {}}
    config["data"] = {"name": data_name, **settings.plain(dataset.settings())}
    for section, kind in SECTIONS.items():
        config[section] = settings.plain(kind())
    for choice in CHOICES:
        shared = settings.plain(choice.shared[choice.section]())
        own = {name: _own_defaults(choice, name) for name in choice.table}
        config[choice.section] = {"name": choice.default, **shared}
        config[choice.plural] = {name: knobs for name, knobs in own.items() if knobs}
    return config


def complete(config: Config) -> dict[str, Any]:
    """Return the whole config: the defaults, with `config` on top.

    Raises:
      ValueError: it names no data set, or has a knob that does not exist.
    """
    data = config.get("data")
    name = data.get("name") if isinstance(data, Mapping) else None
    if not isinstance(name, str):
        raise ValueError(f"config.data.name is missing: it must be one of {', '.join(DATASETS)}")
    rows = config.get("rows", {})
    if not isinstance(rows, Mapping):
        raise ValueError(f"config.rows is {rows!r}: it must be a section of rows")
    changes = {section: part for section, part in config.items() if section != "rows"}
    return merge(defaults(name), changes, "config") | {"rows": rows}


def merge(
    base: Config, changes: Config, place: str, *, whole: Config | None = None
) -> dict[str, Any]:
    """Copy nested plain data with `changes` on top, refusing names that `base` does not have.

    Args:
      base: a section.
      changes: what is set in it.
      place: where `changes` were given, for messages.
      whole: the config that `base` is a section of; None = it is the whole one.

    Raises:
      ValueError: the message begins with `place` and names the sections that have such a knob.
    """
    whole = base if whole is None else whole
    merged = {
        n: merge(part, {}, n) if isinstance(part, Mapping) else part for n, part in base.items()
    }
    for name, value in changes.items():
        if name not in base:
            raise ValueError(f"{place}: {settings.unknown_knob(name, base, whole)}")
        section = isinstance(base[name], Mapping)
        if section != isinstance(value, Mapping):
            kinds = ("a section of knobs", "one value")
            raise ValueError(f"{place}.{name} is {value!r}: it must be {kinds[not section]}")
        there = f"{place}.{name}"
        merged[name] = merge(base[name], value, there, whole=whole) if section else value
    return merged


def check(config: Config) -> None:
    """Check the type and range of every knob of a whole config, whether or not a row reads it.

    Raises:
      ValueError: names the first knob that is wrong, its value and what it must be.
    """
    read_run(config)
    read_data(config)
    for section in SECTIONS:
        read_section(config, section)
    for choice in CHOICES:
        _check_name(config, choice)
        _read_part(choice.shared[choice.section], config, choice.section)
        for name, knobs in config[choice.plural].items():
            place = f"config.{choice.plural}.{name}"
            settings.read(choice.table[name].settings, knobs, place)


def read_run(config: Config) -> RunSettings:
    """Read the knobs at the top of a config."""
    knobs = {name: config[name] for name in settings.plain(RunSettings())}
    return settings.read(RunSettings, knobs, "config")


def read_data(config: Config) -> Chosen:
    """Read which data set a config chooses, and its settings."""
    name = config["data"]["name"]
    kind = _entry("data", name, DATASETS).settings
    return Chosen(name, _read_part(kind, config, "data"))


def read_section(config: Config, section: str) -> Any:
    """Read a section of `SECTIONS`."""
    return settings.read(SECTIONS[section], config[section], f"config.{section}")


def read_choice(config: Config, choice: Choice) -> Chosen | None:
    """Read what a whole config chooses: a name and its settings; None for the name `NONE`.

    Raises:
      ValueError: the name is unknown, or a knob is wrong.
    """
    name = _check_name(config, choice)
    if name == NONE:
        return None
    knobs, homes = {}, {}
    for section, knob_name, value in _knobs_of(config, choice, name):
        knobs[knob_name], homes[knob_name] = value, section
    try:
        return Chosen(name, settings.read(choice.table[name].settings, knobs, ""))
    except ValueError as error:  # ".KNOB is VALUE: ..."
        found = re.match(r"\.(\w+)", str(error))
        home = homes.get(found[1] if found else "", choice.section)
        raise ValueError(f"config.{home}{error}") from None


def changes_of(choice: Choice, content: Config | None) -> dict[str, Any]:
    """Return what a config sets to choose an entry with these knobs, `{"name": ..., knob: ...}`."""
    if content is None:
        return {choice.section: {"name": NONE}}
    name, found = content["name"], {choice.section: {"name": content["name"]}}
    for knob_name, value in content.items():
        shared = [s for s, kind in choice.shared.items() if knob_name in _names(kind)]
        if shared:
            found.setdefault(shared[0], {})[knob_name] = value
        elif knob_name != "name":
            own: Any = found.setdefault(choice.plural, {})
            own.setdefault(name, {})[knob_name] = value
    return found


def _knobs_of(config: Config, choice: Choice, name: str) -> Iterator[tuple[str, str, Any]]:
    """Yield section, name and value of each knob of an entry."""
    known = _names(choice.table[name].settings)
    for section, kind in choice.shared.items():
        for shared in known & _names(kind):
            yield section, shared, config[section][shared]
    for own, value in config[choice.plural].get(name, {}).items():
        yield f"{choice.plural}.{name}", own, value


def _own_defaults(choice: Choice, name: str) -> dict[str, Any]:
    shared = {knob_name for kind in choice.shared.values() for knob_name in _names(kind)}
    every = settings.plain(choice.table[name].settings())
    return {knob_name: value for knob_name, value in every.items() if knob_name not in shared}


def _read_part(kind: type[Settings], config: Config, section: str) -> Any:
    """Read a section without its `name`."""
    knobs = {name: value for name, value in config[section].items() if name != "name"}
    return settings.read(kind, knobs, f"config.{section}")


def _check_name(config: Config, choice: Choice) -> str:
    name = config[choice.section]["name"]
    known = {**choice.table, NONE: None} if choice.optional else choice.table
    _entry(choice.section, name, known)
    return str(name)


def _entry(section: str, name: Any, table: Mapping[str, Any]) -> Any:
    if not isinstance(name, str):
        raise ValueError(f"config.{section}.name is {name!r}: it must be of type str")
    try:
        return settings.find("data set" if section == "data" else section, name, table)
    except ValueError as error:
        raise ValueError(f"config.{section}.name: {error}") from None


def _names(kind: type[Settings]) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}
