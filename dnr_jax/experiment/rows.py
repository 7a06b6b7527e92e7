"""The rows of a result table as typed objects: the config's knobs, overridden by each row's."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dnr_jax import settings
from dnr_jax.experiment import sections
from dnr_jax.experiment.sections import Chosen, Config
from dnr_jax.experiment.settings import ComputeSettings, OptimSettings
from dnr_jax.objectives import ObjectiveSettings
from dnr_jax.rerankers import RERANKERS
from dnr_jax.training.settings import TrainSettings

# Models that order by the first stage's scores and learn nothing.
BY_SCORES = ("retriever", "reversed", "mmr")
# Sections that a row may set; the others belong to the whole table.
SETTABLE = {
    *("objective", "optim", "train", "compute"),
    *(choice.section for choice in sections.CHOICES if choice is not sections.RETRIEVER),
    *(choice.plural for choice in sections.CHOICES if choice is not sections.RETRIEVER),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table.

    Attributes:
      key: its name in `config.rows`, and the name of its folders.
      model: its name in `results.json`.
      label: its name for readers.
      sweep: `{"knob": name, "value": number}` for a row that is one point of a figure, else None.
      seeds: seeds of its trainings; a model that learns nothing has one.
      reranker: the model.
      noise: the heuristic family of phase 1; None for a row without denoising.
      generator: the learned one of phase 2; None for a row that never learns one.
      divergence: the estimator of L_x, for a learned generator.
      objective: the losses and their weights.
      optim: the optimisers.
      train: the training settings.
      compute: the precision.
      frozen: whether it is scored with its first parameters, without training.
    """

    key: str
    model: str
    label: str
    sweep: Mapping[str, Any] | None
    seeds: tuple[int, ...]
    reranker: Chosen
    noise: Chosen | None
    generator: Chosen | None
    divergence: Chosen
    objective: ObjectiveSettings
    optim: OptimSettings
    train: TrainSettings
    compute: ComputeSettings
    frozen: bool = False

    @property
    def trains(self) -> bool:
        """Whether the model has anything to learn."""
        return RERANKERS[self.reranker.name].trains

    @property
    def reads_scores(self) -> bool:
        """Whether the row needs first-stage scores."""
        entry = getattr(self.reranker.settings, "score_entry", "none")
        return self.noise is not None or entry != "none" or self.reranker.name in BY_SCORES


@dataclass(frozen=True, kw_only=True)
class _Template(settings.Settings):
    """A row as written in a config, without `set` and `sweep`, which are nested."""

    model: str = settings.knob("", "its name in results.json; {reranker} stands for the model's")
    label: str = settings.knob("", "what a reader sees; {reranker} stands for the model's name")
    frozen: bool = settings.knob(False, "it is scored as it begins, without training")


def table(config: Config) -> tuple[Row, ...]:
    """Read the rows that `config.table` lists, in its order.

    Args:
      config: a whole config that `sections.check` has passed.

    Raises:
      ValueError: the table is empty, repeats a row or names an unknown one, or a row is wrong.
    """
    if not isinstance(config["table"], str):
        raise ValueError(
            f"config.table is {config['table']!r}: write its rows as text, as 'retriever,dnr_b'"
        )
    keys = [key.strip() for key in config["table"].split(",") if key.strip()]
    for key in keys:
        if key not in config["rows"]:
            raise ValueError(f"config.table: {settings.unknown('row', key, config['rows'])}")
    if not keys or len(set(keys)) < len(keys):
        raise ValueError(f"config.table is {config['table']!r}: name each row to run once")
    return tuple(_row(config, key) for key in keys)


def _row(config: Config, key: str) -> Row:
    place, row = f"config.rows.{key}", config["rows"][key]
    if not isinstance(row, Mapping):
        raise ValueError(f"{place} is {row!r}: it must be a section of knobs")
    changes, sweep = row.get("set", {}), row.get("sweep")
    words = {name: value for name, value in row.items() if name not in ("set", "sweep")}
    template = settings.read(_Template, words, place)
    reranker = config["reranker"]["name"]
    merged = _with(config, changes, f"{place}.set")
    try:
        knobs = _knobs(merged)
    except ValueError as error:
        raise ValueError(_at_row(str(error), changes, place)) from None
    return Row(
        key=key,
        model=_filled(template.model, reranker, f"{place}.model"),
        label=_filled(template.label, RERANKERS[reranker].title, f"{place}.label"),
        sweep=sweep,
        frozen=template.frozen,
        **knobs,
    )


def _with(config: Config, changes: Any, place: str) -> dict[str, Any]:
    """Return the config with a row's knobs set."""
    if not isinstance(changes, Mapping):
        raise ValueError(f"{place} is {changes!r}: it must be a section of knobs")
    for section in changes:
        if section in config and section not in SETTABLE:
            raise ValueError(f"{place}.{section}: a row cannot set it, it is of the whole table")
    base = {name: config[name] for name in config if name not in ("table", "rows")}
    return sections.merge(base, changes, place)


def _knobs(config: Config) -> dict[str, Any]:
    """Read the settings that a row trains and scores with."""
    train: TrainSettings = sections.read_section(config, "train")
    reranker = sections.read_choice(config, sections.RERANKER)
    noise = sections.read_choice(config, sections.NOISE)
    generator = sections.read_choice(config, sections.GENERATOR)
    assert reranker is not None
    trains = RERANKERS[reranker.name].trains
    noise = noise if trains else None
    return {
        "reranker": reranker,
        "noise": noise,
        "generator": None if noise is None else generator,
        "divergence": sections.read_choice(config, sections.DIVERGENCE),
        "seeds": tuple(range(config["seed"], config["seed"] + (train.seeds if trains else 1))),
        "train": train,
        **{name: sections.read_section(config, name) for name in ("objective", "optim", "compute")},
    }


def _at_row(text: str, changes: Config, place: str) -> str:
    """Name the row's own knob if that one is wrong, else add the row to the config's knob."""
    path = text.removeprefix("config.").split(":")[0].split(" ")[0]
    value: Any = changes
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if value is not None:
        return f"{place}.set.{text.removeprefix('config.')}"
    return f"{text} (row {place.rpartition('.')[2]!r})"


def _filled(template: str, reranker: str, place: str) -> str:
    """Replace `{reranker}` by the model's name."""
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError:
        fields = {""}
    if not template or not fields <= {"reranker"}:
        raise ValueError(
            f"{place} is {template!r}: it must be a text whose only braces are {{reranker}}"
        )
    return template.format(reranker=reranker)
