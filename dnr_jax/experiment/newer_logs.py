"""Plan an experiment that continues an earlier model, with its own settings, on newer logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dnr_jax import config_files
from dnr_jax.data.encoders import Encoders
from dnr_jax.data.store import Prepared
from dnr_jax.experiment import datasets, own_logs, sections, start
from dnr_jax.experiment.own_logs import TABLE, TRIVIAL, Advice, Choice
from dnr_jax.experiment.plan import make_plan
from dnr_jax.experiment.start import Start
from dnr_jax.io.run_folder import ENCODERS

EARLIER = "earlier"  # the row of the model as it was
# What may change for newer logs: column names, splits, and how long, how fast and where to train.
FREE = {
    "data": (
        *("path", "schema", "columns", "item_file", "user_file", "labels", "min_count"),
        *("split_by", "valid_share", "test_share"),
    ),
    "train": ("epochs", "seeds", "batch_size", "micro_batch", "patience", "lambda_e", "stream"),
    "optim": ("reranker", "generator"),
    "devices": ("count", "shard_tables"),
}
_CHOICES = (sections.RERANKER, sections.NOISE, sections.GENERATOR, sections.DIVERGENCE)


def advise(model: Path, given: Mapping[str, Any]) -> Advice:
    """Make the experiment that continues training a model; its table is read first, and cached.

    The unchanged model is in the result table too, as the row `EARLIER`.

    Args:
      model: the folder that `dnr-jax train` or `pack` made.
      given: the user's settings, as nested plain data.

    Raises:
      FileNotFoundError: there is no such model, or no such table.
      ValueError: the model was not trained on log tables, the user sets what the model fixes, or
        the table does not fit it.
    """
    earlier = start.read(model)
    key, knobs = _knobs(model, earlier.card)
    _refuse_conflicts(given, knobs)
    shared = {name: knobs[name] for name in ("candidates", "eval")}
    config = {
        **shared,
        "data": {**knobs["data"], **given.get("data", {}), "known": str(model / ENCODERS)},
        "seed": given.get("seed", knobs["seed"]),
        "cache": given["cache"],
        "devices": given.get("devices", {}),
        "rows": {name: config_files.load(TABLE)["rows"][name] for name in TRIVIAL},
    }
    [plan] = make_plan(config | {"table": TRIVIAL[0]})
    prepared = datasets.arrays(plan.data)
    counts = own_logs.count(prepared)
    trained = {name: knobs[name] for name in knobs if name not in (*shared, "data", "seed")}
    rows = _rows(key, earlier.card, trained, own_logs.rules(counts, given.get("train")), given)
    table = [name for name in TRIVIAL if counts.scores or name != "retriever"]
    config |= {"rows": config["rows"] | rows, "table": ",".join([*table, EARLIER, key])}
    [plan] = make_plan(config)
    if plan.rows[-1].reads_scores and not counts.scores:
        raise ValueError(
            f"the earlier model, {key}, reads the scores of a first stage, and the table has none: "
            "name its column, as in --columns score=YOURS"
        )
    said = [f"going on from {model}: {key}, trained on data {earlier.card['data']['fingerprint']}"]
    said += [own_logs.described(counts, plan.rows[-1]), _growth(earlier, prepared.encoders)]
    return Advice(config | {"start": str(model)}, [*said, *_other_labels(earlier, prepared)])


def choose(folder: Path) -> Choice:
    """Return the row that was trained further, and say whether it beats the earlier model.

    Args:
      folder: the folder of a finished run that `advise` planned.
    """
    metric, learned, _ = own_logs.validated(folder)
    before, (row, after) = learned.pop(EARLIER), *learned.items()
    words = f"the model is {row}: validation {metric} {after:.4f}, as it was {before:.4f}"
    if after > before:
        return Choice(row, [words])
    return Choice(
        row, [f"{words}; no epoch was better, so it is the earlier one with rows for new values"]
    )


def _knobs(model: Path, card: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the row of a model and all its settings, by section of a config."""
    if card["data"]["name"] != TABLE:
        raise ValueError(
            f"{model} was trained on {card['data']['name']}, not on a log table: train it by "
            "python -m dnr_jax.main with --config.start"
        )
    if "experiment" not in card:
        raise ValueError(
            f"{model} does not say by what experiment it was made: pack it again from its run"
        )
    experiment, key = card["experiment"], card["row"]
    row = experiment["rows"][key]
    if "train" not in row:
        raise ValueError(
            f"{model} ({card['reranker']['name']}) learns nothing, so it cannot be trained further"
        )
    found = {name: experiment[name] for name in ("seed", "data", "candidates", "eval")}
    for choice in _CHOICES:
        if choice.section in row:
            found = own_logs.merged(found, sections.changes_of(choice, row[choice.section]))
    return key, found | {name: row[name] for name in ("objective", "optim", "train", "compute")}


def _refuse_conflicts(given: Mapping[str, Any], knobs: Mapping[str, Any]) -> None:
    """Refuse knobs that the user sets differently from the earlier model, naming each."""
    whole = sections.defaults(TABLE)
    sections.merge(whole, given, "config")  # refuses knobs that do not exist
    usual, fixed = dict(_leaves(whole)), dict(_leaves(knobs))
    lines = []
    for path, value in _leaves(given):
        section, name = (*path, "")[:2]
        if name in FREE.get(section, ()) or section in ("cache", "seed"):
            continue
        if fixed.get(path, usual.get(path)) != value:
            was = fixed.get(path, usual.get(path))
            lines.append(f"config.{'.'.join(path)} is {value!r}, was {was!r}")
    if lines:
        raise ValueError(
            f"--from goes on with a model as it was set up, but {'; '.join(lines)}: leave this "
            "out, or train a new model"
        )


def _leaves(
    value: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, part in value.items():
        if isinstance(part, Mapping):
            yield from _leaves(part, (*path, name))
        else:
            yield (*path, name), part


def _rows(
    key: str,
    card: Mapping[str, Any],
    knobs: Mapping[str, Any],
    rules: Mapping[str, Any],
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the rows of a config: the unchanged model, and the same model trained further."""
    own = card["experiment"]["rows"][key]
    once = own_logs.merged(knobs, {"train": {"seeds": 1, "learning_rate_factors": [1.0]}})
    chosen = {name: given[name] for name in ("train", "optim") if name in given}
    kept = {name: v for name, v in knobs["train"].items() if name not in rules["train"]}
    longer = own_logs.merged({**knobs, "train": kept | rules["train"]}, chosen)
    return {
        EARLIER: {"model": EARLIER, "label": "the earlier model", "set": once, "frozen": True},
        key: {"model": own["model"], "label": own["label"], "set": longer},
    }


def _growth(earlier: Start, now: Encoders) -> str:
    """Say how many values of each vocabulary are known and how many are new."""
    parts = []
    for name in earlier.encoders.spec.sizes:
        before, after = len(earlier.encoders.vocabularies[name].keys), now.vocabularies[name]
        new = len(after.keys) - before
        parts += [f"{name} {before:,} and {new:,} new"] if new else []
    return f"known values keep what they learned: {', '.join(parts) or 'none is new'}"


def _other_labels(earlier: Start, prepared: Prepared) -> list[str]:
    was, now = (report.get("labels") for report in (earlier.card["report"], prepared.report))
    if was == now:
        return []
    return [f"WARN  labels are read as {now}, when the earlier model was trained as {was}"]
