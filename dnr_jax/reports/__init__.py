"""Tables and plots, made from a run folder alone."""

from __future__ import annotations

import os
from pathlib import Path

from matplotlib.figure import Figure

from dnr_jax import durable
from dnr_jax.io import run_folder
from dnr_jax.reports import first_stages, plots, results, tables
from dnr_jax.reports.rendering import Table, aligned, markdown
from dnr_jax.reports.requests import compare_requests, side_by_side

__all__ = ["compare_requests", "side_by_side", "write", "write_overview"]


def write(workdir: str | os.PathLike[str]) -> str:
    """Write `results.md`, `results.tex`, `results.csv` and `plots/*.png` of a finished run.

    Returns:
      The tables and notes as text for a terminal.

    Raises:
      FileNotFoundError: the run has not finished.
      ValueError: its files are inconsistent.
    """
    folder = Path(workdir).absolute()
    run = results.read(folder)
    figures = plots.draw(folder, {line.row: line.label for line in run.lines})
    links = "\n".join(f"![{name}]({run_folder.PLOTS}/{name}.png)" for name in figures)
    texts = {
        "results.md": f"# Results\n\n{tables.to_markdown(run)}\n{links}\n",
        "results.tex": tables.to_latex(run),
        "results.csv": tables.to_csv(run),
    }
    for name, text in texts.items():
        durable.write_bytes(folder / name, text.encode())
    plots.save(folder, figures)  # the tables come first: they matter most if the disk is full
    return tables.to_text(run)


def write_overview(workdir: str | os.PathLike[str], folders: list[Path]) -> str:
    """Write `overview.md`: every model's main metric in every one of several finished runs.

    Runs of different retrievers also get the retrievers' own quality, and the figure of each row's
    gain by the retriever's AUC, `plots/first_stages.png`.

    Returns:
      The table as text for a terminal.

    Raises:
      FileNotFoundError: a run has not finished.
      ValueError: the files of a run are inconsistent.
    """
    runs = [results.read(folder) for folder in folders]
    links = "\n".join(f"- [{run.folder.name}]({run.folder.name}/results.md)" for run in runs)
    text = f"# Overview\n\n{tables.overview_markdown(runs)}\n\nThe whole tables:\n\n{links}\n"
    page, shown = Path(workdir).absolute() / "overview.md", tables.overview_text(runs)
    if len({run.config.get("retriever", {}).get("name") for run in runs}) > 1:
        quality, figure = _first_stages(runs)
        plots.save(page.parent, {"first_stages": figure})
        text += f"\n{markdown(quality)}\n\n![first stages]({run_folder.PLOTS}/first_stages.png)\n"
        shown += aligned(quality) + "\n"
    durable.write_bytes(page, text.encode())
    return shown


def _first_stages(runs: list[results.Run]) -> tuple[Table, Figure]:
    gains = first_stages.gains(runs)
    figure = first_stages.figure(gains, runs[0].main_metric)
    return first_stages.table(runs), figure
