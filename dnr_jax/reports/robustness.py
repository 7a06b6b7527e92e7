"""Robustness of a run's rows to score drift: a table, a figure, and the numbers behind them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dnr_jax import durable, json_files
from dnr_jax.evaluation.shifts import AS_TRAINED, SHIFTS
from dnr_jax.reports import significance
from dnr_jax.reports.panels import DPI, finish, grid, style
from dnr_jax.reports.rendering import Table, aligned, markdown
from dnr_jax.reports.results import Run
from dnr_jax.reports.significance import Difference, Row

NAME = "robustness"
NOTE = (
    "Test N@{k} in percent when the first stage's scores change after training; mean ± sample "
    "standard deviation over seeds. Changes from the scores as trained, in points, with a 95 % "
    "interval over requests and seeds; both sides are the same trained models, so that seeds are "
    "paired. {requests} requests. Rows that read no scores change nowhere."
)


class Cell(NamedTuple):
    """One row under one shift.

    Attributes:
      mean, spread: mean and spread of the metric over seeds; the spread is NaN for one seed.
      change: change from the scores as trained.
    """

    mean: float
    spread: float
    change: Difference


Cells = dict[str, dict[str, Cell]]


def summarise(values: Mapping[str, Mapping[str, np.ndarray]], run: Run) -> Cells:
    """Average over seeds and requests.

    Args:
      values: N@K `float [S, R]` by row label and shift, NaN = excluded.
      run: tells which of the rows learn nothing.

    Returns:
      The cells by row label and shift.
    """
    trivial = {line.label for line in run.lines if line.trivial}
    return {
        label: {n: _cell(v, by[AS_TRAINED], label not in trivial) for n, v in by.items()}
        for label, by in values.items()
    }


def to_text(cells: Cells, run: Run) -> str:
    """Render both tables for a terminal."""
    return "\n\n".join([*(aligned(t) for t in _tables(cells, run.k)), _note(run)]) + "\n"


def write(out: Path, cells: Cells, run: Run) -> None:
    """Write `robustness.md`, `.json` and `.png` into a folder, the figure last."""
    figure = draw(
        {label: {n: c.mean for n, c in by.items()} for label, by in cells.items()},
        {name: shift.label for name, shift in SHIFTS.items()},
    )
    parts = [markdown(table) for table in _tables(cells, run.k)]
    text = "\n\n".join(["# Robustness", *parts, _note(run), f"![{NAME}]({NAME}.png)"])
    out.mkdir(parents=True, exist_ok=True)
    json_files.write(out / f"{NAME}.json", _plain(cells, run))
    durable.write_bytes(out / f"{NAME}.md", f"{text}\n".encode())
    with durable.replacing(out / f"{NAME}.png") as file:
        figure.savefig(file, format="png", dpi=DPI)


def draw(means: Mapping[str, Mapping[str, float]], shifts: Mapping[str, str]) -> Figure:
    """Draw N@K of each row (a line) under each shift of the scores (a place on the axis).

    Args:
      means: N@K by row label and shift, fractions.
      shifts: label of each shift, in the order of the axis.
    """
    figure, (axis,) = grid(1, columns=1)
    figure.set_figwidth(9.0)
    for number, (label, by) in enumerate(means.items()):
        look = style(number)
        values = [100 * by[name] for name in shifts]
        axis.plot(range(len(shifts)), values, marker="o", markersize=4, label=label, **look)
    axis.set_xticks(range(len(shifts)), list(shifts.values()))
    axis.set(ylabel="test N@K, percent")
    axis.grid(axis="y", alpha=0.3)
    return finish(figure, "Scores that change after training")


def _cell(values: np.ndarray, usual: np.ndarray, learned: bool) -> Cell:
    counted = ~np.isnan(values).any(axis=0)
    kept, change = values[:, counted], (values - usual)[:, counted]
    nothing = Row(np.zeros((1, change.shape[1])), learned=False)
    means = kept.mean(axis=1)
    spread = float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")
    return Cell(float(means.mean()), spread, significance.difference(Row(change, learned), nothing))


def _tables(cells: Cells, k: int) -> list[Table]:
    header = ["model", *(shift.label for shift in SHIFTS.values())]

    def level(cell: Cell) -> str:
        spread = "" if np.isnan(cell.spread) else f" ± {100 * cell.spread:.2f}"
        return f"{100 * cell.mean:.2f}{spread}"

    def change(cell: Cell) -> str:
        mean, low, high = (100 * value for value in cell.change[:3])
        return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"

    rows = [[label, *map(level, by.values())] for label, by in cells.items()]
    moved = [[label, *map(change, list(by.values())[1:])] for label, by in cells.items()]
    return [
        Table(f"N@{k} when the scores change", header, rows),
        Table("Change from the scores as trained", [header[0], *header[2:]], moved),
    ]


def _note(run: Run) -> str:
    return NOTE.format(k=run.k, requests=run.requests - run.excluded)


def _plain(cells: Cells, run: Run) -> dict[str, Any]:
    def numbers(cell: Cell) -> dict[str, Any]:
        spread = None if np.isnan(cell.spread) else cell.spread
        return {"mean": cell.mean, "spread": spread, "change": cell.change._asdict()}

    rows = {label: {n: numbers(c) for n, c in by.items()} for label, by in cells.items()}
    return {"metric": run.main_metric, "rows": rows}
