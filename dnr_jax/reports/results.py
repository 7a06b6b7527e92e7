"""The results of a finished run folder, read back and averaged over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dnr_jax import json_files
from dnr_jax.io import run_folder
from dnr_jax.reports import records, significance

ENVIRONMENT_KEYS = (
    *("backend", "command", "commit", "cpu", "cpu_count", "devices", "memory_gib", "packages"),
    "python",
)


class Line(NamedTuple):
    """One model over all its seeds.

    Attributes:
      row: its key in the config; names its records, checkpoints and analysis file.
      model: its name in `results.json` and `per_request.parquet`.
      label: its name for readers.
      trivial: True for a scorer that learns nothing from the labels.
      seeds: its seeds, ascending.
      mean: average over seeds by metric name; seeds without a value do not count.
      spread: sample standard deviation over seeds (divisor S - 1); NaN for fewer than two.
      parameters: numbers that one seed of it learns; None for a scorer that learns nothing.
      training_seconds: wall time of training, all seeds and trials; None if it was not trained.
      scoring_seconds: wall time of scoring and evaluating, all seeds.
      best_epochs: the epoch that each seed kept; empty for a scorer that learns nothing.
      factor: factor on its learning rates, chosen on validation.
    """

    row: str
    model: str
    label: str
    trivial: bool
    seeds: list[int]
    mean: dict[str, float]
    spread: dict[str, float]
    parameters: int | None
    training_seconds: float | None
    scoring_seconds: float | None
    best_epochs: list[int]
    factor: float


class Run(NamedTuple):
    """A finished run as the reports see it.

    Attributes:
      folder: where it came from.
      config: the resolved config.
      environment: versions, machine, command, commit.
      protocol: name of the candidate protocol.
      k: length of the shown list.
      requests: requests of the test split.
      excluded: those of them without a positive in the pool.
      lines: the models, in the order of `results.json`.
      comparisons: each model against its best other, by model; empty with fewer than two models,
        or without a request that every model has a value for, as are the next two.
      against_trivial: by learned model, the lower end of the 95 % interval of its
        difference to the best trivial scorer in the main metric.
      against_direct: by DNR model `X+dnr...`, its difference in the main metric to `X+score`, the
        same reranker trained directly.
    """

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    protocol: str
    k: int
    requests: int
    excluded: int
    lines: list[Line]
    comparisons: dict[str, significance.Comparison]
    against_trivial: dict[str, float]
    against_direct: dict[str, significance.Difference]

    @property
    def main_metric(self) -> str:
        """Name of the metric that rows are compared by."""
        return f"n@{self.k}"

    @property
    def best_trivial(self) -> Line | None:
        """The trivial scorer with the highest main metric, None if the run has none."""
        return _best([line for line in self.lines if line.trivial], self.main_metric)


def read(folder: Path) -> Run:
    """Read a run folder and compare its models per request.

    Raises:
      FileNotFoundError: the run has not finished (a file is missing).
      ValueError: a file is damaged, or `results.json` lacks keys, or mixes protocols or numbers of
        requests.
    """
    rows = records.rows(folder)
    seconds = {n: records.seconds(folder, n) for n in ("seconds", "scoring_seconds")}
    lines = [_line(group, seconds) for group in records.by_model(rows)]
    k = records.cutoff(rows[0]["metrics"], folder)
    _, values = records.by_request(folder, f"n@{k}", {n.model: n.seeds for n in lines})
    trivial = {line.model for line in lines if line.trivial}
    compared = {m: significance.Row(v, learned=m not in trivial) for m, v in values.items()}
    if not next(iter(values.values())).size:
        compared = {}  # there is nothing to compare by
    return Run(
        folder=folder,
        config=json_files.read(records.existing(folder / run_folder.CONFIG)),
        environment=json_files.read(
            records.existing(folder / run_folder.ENVIRONMENT),
            keys=ENVIRONMENT_KEYS,
            cure=records.MADE_ANEW,
        ),
        protocol=_only(rows, "protocol", folder),
        k=k,
        requests=_only(rows, "requests", folder),
        excluded=_only(rows, "excluded", folder),
        lines=lines,
        comparisons=significance.compare(compared) if len(compared) > 1 else {},
        against_trivial=_against_trivial(lines, compared, f"n@{k}"),
        against_direct=_against_direct(compared),
    )


def _line(group: list[dict[str, Any]], seconds: dict[str, dict[str, float]]) -> Line:
    names = {name: None for row in group for name in row["metrics"]}
    values = {n: _finite([row["metrics"].get(n) for row in group]) for n in names}
    return Line(
        row=group[0]["row"],
        model=group[0]["model"],
        label=group[0]["label"],
        trivial=group[0]["trivial"],
        seeds=sorted(row["seed"] for row in group),
        mean={n: float(np.mean(v)) if len(v) else np.nan for n, v in values.items()},
        spread={n: float(np.std(v, ddof=1)) if len(v) > 1 else np.nan for n, v in values.items()},
        parameters=group[0].get("parameters"),
        training_seconds=seconds["seconds"].get(group[0]["row"]),
        scoring_seconds=seconds["scoring_seconds"].get(group[0]["row"]),
        best_epochs=[row["best_epoch"] for row in group if "best_epoch" in row],
        factor=group[0].get("learning_rate_factor", 1.0),
    )


def _finite(values: list[float | None]) -> list[float]:
    return [v for v in values if v is not None and np.isfinite(v)]


def _only(rows: list[dict[str, Any]], key: str, folder: Path) -> Any:
    found = {row[key] for row in rows}
    if len(found) > 1:
        raise ValueError(
            f"{folder}: the rows of one table must agree in {key!r}, they have {sorted(found)}"
        )
    return found.pop()


def _best(lines: list[Line], metric: str) -> Line | None:
    known = [line for line in lines if np.isfinite(line.mean.get(metric, np.nan))]
    return max(known, key=lambda line: line.mean[metric], default=None)


def _against_trivial(
    lines: list[Line], rows: Mapping[str, significance.Row], metric: str
) -> dict[str, float]:
    trivial = _best([line for line in lines if line.trivial], metric)
    if trivial is None or not rows:
        return {}
    learned = [line.model for line in lines if not line.trivial]
    return {m: significance.difference(rows[m], rows[trivial.model]).low for m in learned}


def direct_of(model: str) -> str:
    """Name the directly trained counterpart of the DNR model `model`."""
    return model.split("+dnr")[0] + "+score"


def _against_direct(
    rows: Mapping[str, significance.Row],
) -> dict[str, significance.Difference]:
    pairs = {model: direct_of(model) for model in rows if "+dnr" in model}
    return {
        model: significance.difference(rows[model], rows[direct])
        for model, direct in pairs.items()
        if direct in rows
    }
