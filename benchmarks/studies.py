"""Where can DNR help? Tables and figures over what the first stage knows, and how noisily.

    python -m benchmarks.studies information --path ML-100K
    python -m benchmarks.studies noise

`information`: the retriever learns from all training lists, the rerankers from the latest 5 to
100 % of them, as industrial rerankers train on recent exposures. `noise`: the stages of RecFlow's
simulated cascade see what a user likes more and more noisily; as the truth is known there, the
table has each row's rank correlation with it too, the retriever's order among them: a reranker that
denoises lies above it. Each value is an ordinary run folder under `--workdir`, and a command that
is started again goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from benchmarks import harness
from configs import common, movielens, recflow
from dnr_jax import experiment
from dnr_jax.reports import panels, results
from dnr_jax.reports.results import Run

TABLE = ("retriever", "plain", "score", "score_dropout", "dnr_g", "dnr_g_conditional", "dnr_b")
TRUTH = "spearman_truth"
TINY: dict[str, Any] = {
    "table": "retriever,popularity",
    "reranker": {"width": 8, "heads": 1, "feed_forward": 8},
    "retriever": {"name": "popularity", "cross_fit": 0},
    "data": {"history": 4, "core": 5, "simulate": {"users": 60, "movies": 80}},
    "candidates": {"size": 8},
    "train": {"epochs": 1, "seeds": 1, "lambda_e": 1},
}


class Study(NamedTuple):
    """One swept knob.

    Attributes:
      config: of every run, but for the knob and the table.
      knob: its place in the config, with dots.
      values: of the knob.
      axis: what they are, for the figure.
    """

    config: ConfigDict
    knob: str
    values: tuple[float, ...]
    axis: str


def information() -> Study:
    config = common.experiment(movielens.EXPERIMENT, *movielens.NARROW, common.converged())
    config.reranker.name = "sasrec"
    shares = (0.05, 0.1, 0.25, 1.0)
    return Study(config, "candidates.train_share", shares, "share of training lists")


def noise() -> Study:
    spreads = (0.5, 1.0, 2.0, 4.0, 8.0)
    return Study(recflow.get_config(), "data.simulate.noise", spreads, "noise of the first stages")


STUDIES = {"information": information, "noise": noise}


def configs_of(study: Study, arguments: argparse.Namespace) -> dict[float, dict[str, Any]]:
    """Make the config of each value's run."""
    study.config.update({"table": ",".join(arguments.table)})
    study.config.update(TINY if arguments.smoke else {})
    if arguments.path:
        study.config.update({"data": {"path": arguments.path}})
    if arguments.seeds:
        study.config.update({"train": {"seeds": arguments.seeds}})
    if arguments.cache:
        study.config.update({"cache": str(arguments.cache)})
    every = {}
    for value in study.values[-1:] if arguments.smoke else study.values:
        study.config.update(nested(study.knob, value))
        every[value] = study.config.to_dict()
    return every


def nested(knob: str, value: float) -> dict[str, Any]:
    """Write `a.b` and a value as `{"a": {"b": value}}`."""
    return reduce(lambda inner, name: {name: inner}, reversed(knob.split(".")), value)


def rows_of(runs: Mapping[float, Run], axis: str) -> list[dict[str, Any]]:
    """Read a line for each value and row: N@K in percent and, where known, the rank correlation."""
    return [
        {
            axis: value,
            "row": line.label,
            run.main_metric.upper(): shown(line, run.main_metric, 100, 2),
            "rho true": shown(line, TRUTH, 1, 3),
        }
        for value, run in runs.items()
        for line in run.lines
    ]


def shown(line: results.Line, metric: str, scale: int, digits: int) -> str:
    """Write mean ± deviation over seeds; "n/a" where the data has no such metric."""
    mean, spread = (scale * part.get(metric, float("nan")) for part in (line.mean, line.spread))
    return f"{mean:.{digits}f} ± {spread:.{digits}f}".replace(" ± nan", "").replace("nan", "n/a")


def figure(runs: Mapping[float, Run], axis: str) -> Figure:
    """Draw each row's metrics over the knob, one panel a metric; bars are deviations over seeds."""
    main = next(iter(runs.values())).main_metric
    drawn, axes = panels.grid(2, columns=2)
    for panel, (metric, name) in zip(
        axes, ((main, main.upper()), (TRUTH, "rank correlation with the truth")), strict=True
    ):
        for number, label in enumerate(labels(list(runs.values()))):
            points = points_of(runs, label, metric)
            panel.errorbar(*points, label=label, capsize=2, marker="o", **panels.style(number))
        panel.set(xscale="log", xlabel=axis, ylabel=name)
    return panels.finish(drawn, "Mean and standard deviation over seeds, on test")


def labels(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(line.label for run in runs for line in run.lines))


def points_of(
    runs: Mapping[float, Run], label: str, metric: str
) -> tuple[list[float], list[float], list[float]]:
    """Return values of the knob, means and deviations of one row."""
    lines = {v: line for v, run in runs.items() for line in run.lines if line.label == label}
    means = [line.mean.get(metric, float("nan")) for line in lines.values()]
    return list(lines), means, [line.spread.get(metric, 0.0) for line in lines.values()]


def main(arguments: argparse.Namespace) -> None:
    """Run what has not been run, then print the table and draw the figure."""
    study = STUDIES[arguments.what]()
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
