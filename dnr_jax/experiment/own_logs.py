"""Default settings for a user's own data: rules based on its size and content.

They are meant for two CPU cores and a few minutes, and do not search: with more cores or time, set
the knobs yourself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dnr_jax import config_files, json_files, settings
from dnr_jax.data import DATASETS
from dnr_jax.data.store import Prepared
from dnr_jax.experiment import datasets
from dnr_jax.experiment.plan import make_plan
from dnr_jax.experiment.rows import Row
from dnr_jax.io import run_folder

# Rows that learn nothing, and are in every table.
TRIVIAL = ("random", "popularity", "retriever")
# Of few requests the others tend to learn a worse order than the first stage's, where `score_prior`
# begins and then stays (docs/results/information.md).
BACKBONE = ("plain", "score", "score_dropout", "score_prior", "dnr_b", "dnr_g")
BATCHES = 50  # per epoch, about
UPDATES = 2000  # per training, about
MOST_BATCH, LEAST_BATCH = 1024, 16
MOST_EPOCHS, LEAST_EPOCHS = 20, 4
# Seeds: the tests treat them as random, so two say nothing; few requests train quickly.
SEEDS, SEEDS_OF_FEW, FEW = 3, 5, 10_000
# Training requests from which on a model has this size.
SIZES: Mapping[int, Mapping[str, int]] = {
    0: {"width": 16, "heads": 2, "layers": 1, "feed_forward": 32},
    1_000: {"width": 32, "heads": 2, "layers": 1, "feed_forward": 64},
    100_000: {"width": 64, "heads": 4, "layers": 2, "feed_forward": 128},
}
TABLE = "table"
# An id with one training row is memorised, and leaves no data for the embedding of unknown ids.
# Interactions have `core` for that.
ALWAYS: Mapping[str, Mapping[str, Any]] = {TABLE: {"data": {"min_count": 2}}}


class Counts(NamedTuple):
    """What the rules depend on.

    Attributes:
      requests: number of training requests.
      histories: whether any of them has a history.
      scores: whether there is a first stage.
    """

    requests: int
    histories: bool
    scores: bool


class Advice(NamedTuple):
    """A whole experiment on a user's own data.

    Attributes:
      config: the config for `run_all`.
      words: what was chosen and why, one sentence each.
    """

    config: dict[str, Any]
    words: list[str]


class Choice(NamedTuple):
    """The row that becomes the model.

    Attributes:
      row: its key.
      words: which row it is and why, one sentence each.
    """

    row: str
    words: list[str]


def advise(
    given: Mapping[str, Any], *, data: str = TABLE, table: str = "", model: str = ""
) -> Advice:
    """Make the experiment on a user's own data, which is read first and cached for the run.

    Args:
      given: the user's settings, as nested plain data; they win over every rule.
      data: the kind of data, a name of `data.DATASETS`.
      table: rows to compare, separated by commas, beside those that learn nothing; "" = by rule.
      model: the one row to be trained, beside those that learn nothing; "" = all.

    Raises:
      FileNotFoundError, ValueError: the data, a knob or a row cannot be used.
    """
    settings.find("kind of data", data, {n: entry for n, entry in DATASETS.items() if entry.direct})
    base = merged(config_files.load(data), ALWAYS.get(data, {}))
    wished = [model] if model else [one.strip() for one in table.split(",") if one.strip()]
    asked = ",".join(dict.fromkeys([*TRIVIAL, *wished])) if wished else ""
    [plan] = make_plan(merged(base, given, {"table": asked or TRIVIAL[0]}))
    if asked:  # refuse wrong rows before the table is read
        _check_rows(list(plan.rows), [], model)
    counts = count(datasets.arrays(plan.data))
    wanted = asked or ",".join(rows(counts))
    config = merged(base, rules(counts, given.get("train", {})), given, {"table": wanted})
    [plan] = make_plan(config)
    kept = [row for row in plan.rows if counts.scores or not row.reads_scores]
    left = [row.key for row in plan.rows if row not in kept]
    _check_rows(kept, left, model)
    said = [described(counts, next(row for row in kept if row.trains))]
    if left:
        said.append(f"left out, as there are no scores of a first stage: {', '.join(left)}")
    return Advice(config | {"table": ",".join(row.key for row in kept)}, said)


def count(prepared: Prepared) -> Counts:
    """Count what the rules depend on.

    Raises:
      ValueError: there is no training request.
    """
    split = prepared.splits["train"]
    if not len(split.request_id):
        raise ValueError(
            "no training request is left that has a positive label of a weight above 0: there is "
            "nothing to learn from. See what `dnr-jax check` says of labels, weights and splits"
        )
    return Counts(
        requests=len(split.request_id),
        histories=bool(np.any(split.batch.request.history_where)),
        scores=bool(np.any(split.batch.scores)),
    )


def rules(counts: Counts, train: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Choose sizes of model and training by the number of training requests.

    An epoch has about `BATCHES` batches, whose size is a power of two. A training has about
    `UPDATES` updates; the first half of its epochs uses the heuristic noise. It stops early after
    a quarter of its epochs without improvement.

    Args:
      counts: counts of the table.
      train: the user's own settings of `config.train`.
    """
    train = train or {}
    size = dict(SIZES[max(least for least in SIZES if counts.requests >= least)])
    wanted = min(max(counts.requests // BATCHES, LEAST_BATCH), MOST_BATCH)
    batch = train.get("batch_size", min(2 ** int(np.log2(wanted)), counts.requests))
    epochs = round(UPDATES / -(-counts.requests // batch))
    epochs = train.get("epochs", min(max(epochs, LEAST_EPOCHS), MOST_EPOCHS))
    rate = {"learning_rate": 3e-3 if size["width"] < 64 else 1e-3}
    return {
        "reranker": size,
        "optim": {"reranker": rate, "generator": rate},
        "train": {
            "batch_size": batch,
            "epochs": epochs,
            "lambda_e": max(1, epochs // 2),
            "patience": max(3, epochs // 4),
            "seeds": train.get("seeds", SEEDS_OF_FEW if counts.requests < FEW else SEEDS),
        },
    }


def rows(counts: Counts) -> tuple[str, ...]:
    """List the default rows; the rival reads histories if there are any."""
    rival = "sasrec" if counts.histories else "setrank"
    return (*TRIVIAL, *BACKBONE, f"{rival}_score" if counts.scores else rival)


def described(counts: Counts, row: Row) -> str:
    """Say what a row is trained on, and how long."""
    train, width = row.train, getattr(row.reranker.settings, "width", None)
    size = "" if width is None else f"width {width}, "
    return (
        f"{counts.requests:,} training requests: {size}at most {train.epochs} epochs in batches of "
        f"{train.batch_size} requests, {train.seeds} seed{'s' * (train.seeds > 1)}"
    )


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Copy nested plain data, the later layer on top."""
    found: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            nested = isinstance(value, Mapping)
            found[name] = merged(found.get(name, {}), value) if nested else value
    return found


def choose(folder: Path) -> Choice:
    """Choose the trained row with the best mean N@K over seeds on validation; ties go to the first.

    Args:
      folder: the folder of a finished run.

    Raises:
      ValueError: the run has no trained row.
    """
    metric, learned, others = validated(folder)
    if not learned:
        raise ValueError(f"{folder} has no trained row: name one, as in --rows=score,dnr_b")
    (row, best), *rest = sorted(learned.items(), key=lambda item: -item[1])
    words = f"the model is {row}, the best trained row on validation: {metric} {best:.4f}"
    words += f", next {rest[0][0]} {rest[0][1]:.4f}" if rest else ""
    said = [words]
    top = max(others, key=others.__getitem__, default=row)
    if others.get(top, best) > best:
        said.append(
            f"WARN  {top}, which learns nothing, reaches {others[top]:.4f} there: find out why "
            "before you use the model"
        )
    return Choice(row, said)


def validated(folder: Path) -> tuple[str, dict[str, float], dict[str, float]]:
    """Read the validation results of a finished run.

    Returns:
      The metric's name, e.g. "N@6", and its mean over seeds by row: of trained rows, and of others.
    """
    records = json_files.read(folder / run_folder.RESULTS, keys=("rows",))["rows"]
    valid = [record for record in records if record["split"] == "valid"]
    metric = next(name for name in valid[0]["metrics"] if name.startswith("n@"))
    learned, others = (_means(valid, metric, trivial=kind) for kind in (False, True))
    return metric.upper(), learned, others


def _means(valid: list[dict[str, Any]], metric: str, *, trivial: bool) -> dict[str, float]:
    """Average a metric over seeds by row; a row without any value is the worst."""
    found: dict[str, list[float]] = {}
    for record in valid:
        if record["trivial"] == trivial:
            value = record["metrics"][metric]
            found.setdefault(record["row"], []).append(-1.0 if value is None else value)
    return {row: float(np.mean(values)) for row, values in found.items()}


def _check_rows(kept: list[Row], left: list[str], model: str) -> None:
    """Refuse a table that trains nothing, and a model that is not trained."""
    learned = [row.key for row in kept if row.trains]
    if model in left:
        raise ValueError(
            f"--model={model} reads the scores of a first stage, and the table has none: choose a "
            "row that reads none, as plain or sasrec, or name the column of scores"
        )
    if model and model not in learned:
        raise ValueError(f"--model={model} learns nothing: choose a row that is trained, as dnr_b")
    if not learned:
        raise ValueError(
            f"none of the rows {', '.join([*(row.key for row in kept), *left])} can be trained "
            "here: add one that needs no scores, as plain"
        )
