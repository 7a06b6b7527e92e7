"""`dnr-jax robustness`: how well a run's models rank when first-stage scores drift."""

from __future__ import annotations

from pathlib import Path

import click

from dnr_jax import console
from dnr_jax.cli.cache import cache_option
from dnr_jax.io.os_errors import Words

_PATH = click.Path(path_type=Path)
_WORDS = Words("--out or --cache", "file")


@click.command(short_help="Score a run again under other first-stage scores.")
@click.argument("run", type=_PATH)
@click.option("--rows", default="", metavar="KEYS", help="As plain,score,dnr_g; default: all.")
@click.option("--out", type=_PATH, help="Folder of table, figure and numbers.  [RUN/robustness]")
@cache_option("prepared arrays, as --config.cache of the run")
def robustness(run: Path, rows: str, out: Path | None, cache: Path) -> None:
    """Score a finished run's test split again with other first-stage scores.

    RUN is a run folder. Every seed of each row ranks with the scores as trained, with noise added,
    with popularity instead, with their ranks alone, on another scale, with no scores, and with
    their order reversed. Nothing is trained.
    """
    with console.one_line("nothing was written", _WORDS):
        console.log_plainly()
        from tqdm.auto import tqdm

        from dnr_jax import serving
        from dnr_jax.experiment import rescoring
        from dnr_jax.io import compiled
        from dnr_jax.reports import results
        from dnr_jax.reports import robustness as report
        from dnr_jax.settings import find

        cache = cache.expanduser()
        compiled.keep(cache / "compiled")
        finished = results.read(run.absolute())
        lines = {line.row: line for line in finished.lines}
        keys = [key.strip() for key in rows.split(",") if key.strip()] or list(lines)
        chosen = [find("row", key, lines) for key in keys]
        folder = out or finished.folder / report.NAME
        folder.mkdir(parents=True, exist_ok=True)  # before hours of work, whether it can be made
        onto = rescoring.target(finished.folder, cache)
        values = {}
        for line in tqdm(chosen, unit="row", leave=False):
            model = serving.load(run, line.row)
            seeds = rescoring.all_seeds(finished.folder, line.row, model.params, line.factor)
            values[line.label] = dict(rescoring.under_shifts(model.order, seeds, onto))
        cells = report.summarise(values, finished)
        report.write(folder, cells, finished)
        click.echo(report.to_text(cells, finished))
