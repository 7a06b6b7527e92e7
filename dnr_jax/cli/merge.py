"""`dnr-jax merge`: merge rows trained in several run folders into one table."""

from __future__ import annotations

from pathlib import Path

import click

from dnr_jax import console
from dnr_jax.io.os_errors import Words

_PATH = click.Path(path_type=Path)
_WORDS = Words("--out", "folder")


@click.command(short_help="Put rows of several run folders into one table.")
@click.argument("runs", nargs=-1, required=True, type=_PATH)
@click.option("--out", type=_PATH, required=True, help="The run folder to make.")
def merge(runs: tuple[Path, ...], out: Path) -> None:
    """Put the finished rows of several run folders into a new one, and report on it.

    RUNS are run folders with the same data and settings, each with some rows of a table, as when
    several machines share it. A row in several folders is taken from the first. The command that
    trained them, with the whole table and this folder, trains the missing rows.
    """
    with console.one_line("nothing was written", _WORDS):
        console.log_plainly()
        from dnr_jax import experiment, reports

        click.echo(reports.write(experiment.merge_runs(runs, out)))
