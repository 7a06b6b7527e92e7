"""Tables and plots, made from a run folder and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from dnr_jax.io import durable, run_folder
from dnr_jax.reports import plots, results, tables


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
    images = plots.write(folder, {line.row: line.label for line in run.lines})
    links = "\n".join(f"![{p.stem}]({run_folder.PLOTS}/{p.name})" for p in images)
    texts = {
        "results.md": f"# Results\n\n{tables.to_markdown(run)}\n{links}\n",
        "results.tex": tables.to_latex(run),
        "results.csv": tables.to_csv(run),
    }
    for name, text in texts.items():
        durable.write_bytes(folder / name, text.encode())
    return tables.to_text(run)
