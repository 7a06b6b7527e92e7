"""Where can DNR help? Tables and figures over the first stage's information and noise.

    python -m benchmarks.studies information --path ML-100K
    python -m benchmarks.studies noise

`information`: the retriever learns from all training lists, the rerankers from the latest 5 to
100 % of them, as industrial rerankers train on recent exposures. `noise`: the stages of RecFlow's
simulated cascade see a user's preferences with more and more noise. The truth is known there, so
the table also has each row's rank correlation with it, including the retriever's order; a reranker
that denoises lies above that. Rows train to convergence, at three learning rates. `delta_x` is
that of Eq. 5 (arXiv 2509.18736), -KL(p_phi(x | z) || p(x | z)) averaged over both labels, for the
scores that the last epoch's generator (without one, the noise) generates for test candidates, by
kernel densities; 0 is best. Each value is an ordinary run folder under `--workdir`, and a restarted
command resumes where it stopped.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from benchmarks import harness
from benchmarks.pool_sizes import SMALLEST
from configs import common, movielens, recflow
from dnr_jax import divergences, experiment
from dnr_jax.io import row_files
from dnr_jax.reports import panels, results
from dnr_jax.reports.results import Run
from dnr_jax.reports.tables import Column, number

TABLE = (
    *("random", "popularity", "retriever", "plain", "score", "score_dropout", "score_prior"),
    *("dnr_g", "dnr_g_conditional", "dnr_g_prior", "dnr_b"),
)
SMOKE_TABLE = ("retriever", "popularity")
TRUTH = "spearman_truth"


class Study(NamedTuple):
    """One swept knob.

    Attributes:
      layers: what the configs of all runs set.
      at: makes the layer of a value of the knob.
      values: of the knob.
      axis: what they are, for the figure.
      smallest: the layer of the smoke mode.
    """

    layers: tuple[Mapping[str, Any], ...]
    at: Callable[[float], Mapping[str, Any]]
    values: tuple[float, ...]
    axis: str
    smallest: Mapping[str, Any]


STUDIES = {
    "information": Study(
        (movielens.EXPERIMENT, *movielens.PRESETS["converged"], {"reranker": {"name": "sasrec"}}),
        lambda share: {"candidates": {"train_share": share}},
        (0.05, 0.1, 0.25, 1.0),
        "share of training lists",
        SMALLEST,
    ),
    "noise": Study(
        (recflow.EXPERIMENT, *recflow.PRESETS["converged"]),
        lambda noise: {"data": {"simulate": {"noise": noise}}},
        (0.5, 1.0, 2.0, 4.0, 8.0),
        "noise of the first stages",
        {"data": {"simulate": {"users": 40, "videos": 700, "days": 3}}},
    ),
}


def configs_of(study: Study, arguments: argparse.Namespace) -> dict[float, dict[str, Any]]:
    """Make the config of each value's run."""
    smoke = arguments.smoke
    table = {"table": ",".join(SMOKE_TABLE if smoke else arguments.table)}
    own = (
        *((study.smallest,) if smoke else ()),
        table,
        *(({"data": {"path": arguments.path}},) if arguments.path else ()),
        *(({"train": {"seeds": arguments.seeds}},) if arguments.seeds else ()),
        *(({"cache": str(arguments.cache)},) if arguments.cache else ()),
    )
    return {
        value: common.experiment(*study.layers, *own, study.at(value)).to_dict()
        for value in (study.values[-1:] if smoke else study.values)
    }


def rows_of(runs: Mapping[float, Run], axis: str) -> list[dict[str, Any]]:
    """Read one line per value and row: N@K in percent, rank correlation if known, delta_x."""
    return [
        {axis: value, "row": line.label, **{c.title: number(line, c) for c in columns(run)}}
        | {"delta_x": delta_x(run.folder, line.row)}
        for value, run in runs.items()
        for line in run.lines
    ]


def delta_x(folder: Path, row: str) -> str:
    """Estimate -KL(p_phi(x | z) || p(x | z)) of a row's generated scores; "n/a" if it has none."""
    found = row_files.read_analysis(folder, row) or {}
    generated = found.get("generated_phase2", found.get("generated_phase1"))
    if generated is None:
        return "n/a"
    distance = divergences.build("density", conditional=True)
    given = {"labels": found["labels"], "where": np.ones(len(generated), bool)}
    return f"{-float(distance(generated, found['scores'], **given)):.3f}"


def columns(run: Run) -> tuple[Column, Column]:
    """Return the metrics that a study is judged by."""
    main = run.main_metric
    return Column(main.upper(), main, 100, 2), Column("rho true", TRUTH, 1, 3)


def figure(runs: Mapping[float, Run], axis: str) -> Figure:
    """Draw each row's metrics over the knob, one panel each; bars are deviations over seeds."""
    known = [c for c in columns(next(iter(runs.values()))) if measured(runs, c)]
    drawn, axes = panels.grid(len(known), columns=2)
    for panel, column in zip(axes, known, strict=True):
        for place, label in enumerate(labels(list(runs.values()))):
            points = points_of(runs, label, column)
            panel.errorbar(*points, label=label, capsize=2, marker="o", **panels.style(place))
        panel.set(xscale="log", xlabel=axis, ylabel=column.title)
        panel.set_xticks(list(runs), [f"{value:g}" for value in runs])
        panel.set_xticks([], minor=True)
    return panels.finish(drawn, "Mean and standard deviation over seeds, on test")


def measured(runs: Mapping[float, Run], column: Column) -> bool:
    """Tell whether any row has the metric: only simulators know the truth."""
    return any(
        math.isfinite(line.mean.get(column.metric, math.nan))
        for run in runs.values()
        for line in run.lines
    )


def labels(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(line.label for run in runs for line in run.lines))


def points_of(runs: Mapping[float, Run], label: str, column: Column) -> tuple[list[float], ...]:
    """Return values of the knob, means and deviations of one row, as the table has them."""
    lines = {v: line for v, run in runs.items() for line in run.lines if line.label == label}
    parts = ([line.mean for line in lines.values()], [line.spread for line in lines.values()])
    return list(lines), *(
        [column.scale * found.get(column.metric, math.nan) for found in part] for part in parts
    )


def main(arguments: argparse.Namespace) -> None:
    """Run what has not been run, then print the table and draw the figure."""
    study = STUDIES[arguments.what]
    configs = configs_of(study, arguments)
    folders = {value: arguments.workdir / f"{value:g}" for value in configs}
    for value, folder in folders.items():
        experiment.run_all(configs[value], folder)
    runs = {value: results.read(folder) for value, folder in folders.items()}
    found = rows_of(runs, study.axis)
    harness.report(f"{arguments.what}: mean ± deviation over seeds", found, arguments.json)
    picture = arguments.workdir / f"{arguments.what}.png"
    figure(runs, study.axis).savefig(picture, dpi=panels.DPI)
    print(f"figure: {picture}")


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command's flags."""
    made = harness.parser(__doc__ or "")
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("what", choices=STUDIES, help="what is swept")
    made.add_argument("--path", default="", help="MovieLens folder; else simulated")
    made.add_argument("--table", nargs="+", default=list(TABLE), help="rows of the config")
    made.add_argument("--seeds", type=int, help="of each row that is trained")
    made.add_argument("--workdir", type=Path, default=Path("runs/study"), help="run folders")
    made.add_argument("--cache", type=Path, help="cache of prepared data; else the usual one")
    return made


if __name__ == "__main__":
    main(parser().parse_args())
