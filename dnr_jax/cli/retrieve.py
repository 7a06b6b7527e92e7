"""`dnr-jax retrieve`: find candidates for a table of requests, for `dnr-jax score` to rank."""

from __future__ import annotations

from pathlib import Path

import click

from dnr_jax import console
from dnr_jax.io.os_errors import Words

_PATH = click.Path(path_type=Path)


@click.command(short_help="Find candidates for requests by a model's retriever.")
@click.argument("model", type=_PATH)
@click.argument("requests", type=_PATH)
@click.option("--out", required=True, type=_PATH, help="Parquet file of the candidates.")
@click.option("--size", type=click.IntRange(1), help="Candidates a request.  [as in training]")
@click.option("--row", help="Which model of a run folder; not needed for a packed model.")
@click.option("--columns", default="", metavar="PAIRS", help="As request_id=session,user_id=uid.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there, once all is done.")
def retrieve(
    model: Path,
    requests: Path,
    out: Path,
    size: int | None,
    row: str | None,
    columns: str,
    overwrite: bool,
) -> None:
    """Find candidates in the whole catalogue, by the retriever of a model of interactions.

    MODEL is a folder made by `dnr-jax train` or `pack`, or a run folder with --row. REQUESTS is a
    Parquet, Arrow or CSV file with one row per request: request_id and, if known, user_id and
    history (item ids, the latest last). Items of the history are left out. `dnr-jax score` ranks
    the file that is written.
    """
    with console.one_line("nothing was written", Words("--out", "file")):
        console.log_plainly()
        from dnr_jax.serving import load, retrieving

        loaded = load(model, row)
        made = retrieving.retrieve_file(
            loaded, requests, out, size=size, names=columns, overwrite=overwrite, progress=True
        )
        click.echo(f"{out}: {made:,} candidates; rank them by dnr-jax score {model} {out}")
