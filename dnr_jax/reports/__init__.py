"""Tables and plots, made from a run folder and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from dnr_jax import durable
from dnr_jax.io import run_folder
from dnr_jax.reports import plots, results, tables
from dnr_jax.reports.requests import compare_requests, side_by_side

__all__ = ["compare_requests", "side_by_side", "write", "write_overview"]


def write(workdir: str | os.PathLike[str]) -> str:
    """Write `results.md`, `results.tex`, `results.csv` and `plots/*.png` of a finished run.

    Returns:
      The tables and notes as text for a terminal.

    Raises:
      FileNotFoundError: the run has not finished.
      ValueError: its files do not fit together.
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
    """Write `overview.md`: every model's main metric under every protocol, one finished run each.

    Returns:
      The table as text for a terminal.

    Raises:
      FileNotFoundError: a run has not finished.
      ValueError: the files of a run do not fit together.
    """
    runs = [results.read(folder) for folder in folders]
    links = "\n".join(f"- [{run.protocol}]({run.folder.name}/results.md)" for run in runs)
    text = f"# Overview\n\n{tables.overview_markdown(runs)}\n\nThe whole tables:\n\n{links}\n"
    durable.write_bytes(Path(workdir).absolute() / "overview.md", text.encode())
    return tables.overview_text(runs)
