"""Retriever by reranker: how good each first stage is, and what each row gains over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dnr_jax import json_files
from dnr_jax.io import run_folder
from dnr_jax.reports import records, significance
from dnr_jax.reports.panels import COLOURS
from dnr_jax.reports.rendering import Table
from dnr_jax.reports.results import Run
from dnr_jax.reports.tables import ABSENT

BY_SCORES = "retriever"


class Gain(NamedTuple):
    """A row's difference in the main metric from the retriever's order, on the same requests.

    Attributes:
      auc: AUC of the retriever, by user, on test.
      difference, low, high: mean and 95 % interval, in percent; see `significance.Difference`.
    """

    auc: float
    difference: float
    low: float
    high: float


def quality(run: Run) -> dict[str, float]:
    """Return the retriever's findings on test: `auc_user`, `recall@50` and others."""
    path = run.folder / run_folder.AUDIT
    content = json_files.read(path, keys=("data",), cure=records.MADE_ANEW)
    found: dict[str, float] = content["data"]["retriever"]["test"]
    return found


def seconds(run: Run) -> dict[str, float]:
    """Return the retriever's training time when the run's data was prepared; {} if not known.

    `retriever_seconds` is the fit on all training lists, `folds_seconds` that of all folds.
    """
    path = run.folder / run_folder.TIMINGS
    records = json_files.read_lines(path, keys=run_folder.TIMINGS_KEYS)
    own = [record for record in records if record["row"] == run_folder.FIRST_STAGE]
    names = ("retriever_seconds", "folds_seconds")
    return {n: own[-1][n] for n in names if n in own[-1]} if own else {}


def table(runs: Sequence[Run]) -> Table:
    """Build the table of the first stages' own quality and training time, one line each."""
    names, times = ("auc_user", "auc_micro", "recall@50"), ("retriever_seconds", "folds_seconds")
    body = []
    for run in runs:
        test, took = quality(run), seconds(run)
        shown = [f"{took[n]:,.1f}" if n in took else ABSENT for n in times]
        body.append([run.folder.name, *(f"{test[n]:.4f}" for n in names), *shown])
    header = ["retriever", *names, "training s", "training s, folds"]
    return Table("First stages on test", header, body)


def gains(runs: Sequence[Run]) -> dict[str, list[Gain]]:
    """Compare each trained row with the retriever's order, by label and in order of AUC.

    A run without the row `retriever` is left out.
    """
    found: dict[str, list[Gain]] = {}
    for run in sorted(runs, key=lambda run: quality(run)["auc_user"]):
        own = [line for line in run.lines if line.model == BY_SCORES]
        learned = [line for line in run.lines if not line.trivial and own]
        seeds = {line.model: line.seeds for line in (*own, *learned)}
        values = records.by_request(run.folder, run.main_metric, seeds)[1] if own else {}
        for line in learned:
            pair = significance.Row(values[line.model]), significance.Row(values[BY_SCORES], False)
            mean, low, high, *_ = significance.difference(*pair)
            gain = Gain(quality(run)["auc_user"], 100 * mean, 100 * low, 100 * high)
            found.setdefault(line.label, []).append(gain)
    return found


def figure(gains: Mapping[str, Sequence[Gain]], metric: str) -> Figure:
    """Draw each row's gain against the retriever's AUC; bars are 95 % intervals."""
    drawn = Figure(figsize=(7.5, 5), layout="constrained")
    axis = drawn.subplots()
    axis.axhline(0, color="black", linestyle=":", label="retriever order")
    for number, (label, points) in enumerate(gains.items()):
        auc, mean, low, high = np.array(points).T
        style: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": "osv^Dx*"[number // len(COLOURS) % 7],
        }
        axis.errorbar(auc, mean, (mean - low, high - mean), label=label, capsize=2, **style)
    axis.set(xlabel="AUC of the retriever on test", ylabel=f"{metric.upper()} gain, percent")
    drawn.legend(loc="outside lower center", ncols=2, fontsize=8.5)
    return drawn
