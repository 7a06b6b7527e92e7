"""`dnr-jax score` and `dnr-jax pack`: rank tables of candidates; copy a model out of its run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dnr_jax import console
from dnr_jax.cli import unknown_values
from dnr_jax.cli.cache import cache_option
from dnr_jax.io.os_errors import Words

if TYPE_CHECKING:
    from dnr_jax.serving.files import Summary

_PATH = click.Path(path_type=Path)
_WORDS = Words("--out or --cache", "part")


@click.command(short_help="Rank a table of candidates by a model.")
@click.argument("model", type=_PATH)
@click.argument("candidates", type=_PATH)
@click.option("--out", required=True, type=_PATH, help="Parquet file of the ranked candidates.")
@click.option("--row", help="Which model of a run folder; not needed for a packed model.")
@click.option("--schema", default="", metavar="FILE", help="TOML or YAML: what your columns are.")
@click.option(
    "--columns", default="", metavar="PAIRS", help="As request_id=session,score=bm25; wins."
)
@click.option("--item-file", default="", metavar="FILE", help="Describes items, by item_id.")
@click.option("--user-file", default="", metavar="FILE", help="Describes users, by user_id.")
@click.option(
    "--part-rows",
    default=2**17,
    show_default=True,
    type=click.IntRange(1),
    help="Candidates of a part, about; three parts are in memory.",
)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there, once all is done.")
@cache_option("compiled programs")
def score(
    model: Path,
    candidates: Path,
    out: Path,
    row: str | None,
    schema: str,
    columns: str,
    item_file: str,
    user_file: str,
    part_rows: int,
    overwrite: bool,
    cache: Path,
) -> None:
    """Rank the candidates of each request by a trained model.

    MODEL is a folder made by `dnr-jax pack`, or a run folder with --row. CANDIDATES is a Parquet,
    Arrow or CSV file, or a folder of them, with the columns of the training table except labels, or
    request_id, item_id, score, user_id and history for a model of interactions; the rows of a
    request must be next to each other. If interrupted, the same command resumes after the last
    finished part.
    """
    with console.one_line("finished parts are kept; start the same command again to go on", _WORDS):
        console.log_plainly()
        from dnr_jax.io import compiled
        from dnr_jax.serving import Scorer, files

        began = time.monotonic()
        inputs = [candidates, *(Path(side) for side in (item_file, user_file) if side)]
        files.check_out(out, overwrite=overwrite, inputs=inputs)
        compiled.keep(cache.expanduser() / "compiled")
        names = {"schema": schema, "columns": columns}
        scorer = Scorer(model, row, **names, item_file=item_file, user_file=user_file)
        done = files.score_file(
            scorer, candidates, out, rows=part_rows, overwrite=overwrite, progress=True
        )
        click.echo("\n".join(_lines(done, time.monotonic() - began)))


@click.command(short_help="Copy a trained model out of a run folder.")
@click.argument("run", type=_PATH)
@click.option("--row", required=True, help="Which of the run's models, as dnr_b.")
@click.option("--out", required=True, type=_PATH, help="The model folder that is made.")
@click.option("--overwrite", is_flag=True, help="Replace a model that is there, once all is done.")
def pack(run: Path, row: str, out: Path, overwrite: bool) -> None:
    """Copy a trained model out of a run folder, with all that it needs to score requests."""
    with console.one_line("nothing was written", Words("--out", "file")):
        from dnr_jax import serving

        made = serving.pack(run, row, out, overwrite=overwrite)
        click.echo(f"{made} can be copied anywhere")


def _lines(done: Summary, seconds: float) -> list[str]:
    counts = done.counts
    rate = (counts["candidates"] - done.resumed) / seconds
    lines = [
        f"{done.out}: {counts['requests']:,} requests, {counts['candidates']:,} candidates, "
        f"{seconds:.1f} s, {rate:,.0f} candidates/s"
    ]
    if done.resumed:
        lines.append(f"{done.resumed:,} of these candidates had already been scored")
    if done.missing:
        lines.append(
            f"columns missing from the table, treated as unknown: {', '.join(done.missing)}"
        )
    return [*lines, *unknown_values.lines(dict(sorted(counts.items())), done.missing)]
