"""`dnr-jax retrieve`: find candidates for a table of requests, for `dnr-jax score` to rank."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dnr_jax import console
from dnr_jax.cli import unknown_values
from dnr_jax.io.os_errors import Words

if TYPE_CHECKING:
    from dnr_jax.serving.retrieving import Summary

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
        click.echo("\n".join(_lines(made, model)))


def _lines(done: Summary, model: Path) -> list[str]:
    counts = done.counts
    lines = [
        f"{done.out}: {counts['candidates']:,} candidates; rank them by dnr-jax score {model} "
        f"{done.out}"
    ]
    if done.missing:
        lines.append(f"not in the table, taken as unknown: {', '.join(done.missing)}")
    if done.unread:
        lines.append(f"columns that are not read: {', '.join(_unread(done))}")
    return [*lines, *unknown_values.lines(counts, done.missing), *_empty(done)]


def _unread(done: Summary) -> list[str]:
    return [
        name if near is None else f"{name} (did you mean {near}?)"
        for name, near in done.unread.items()
    ]


def _empty(done: Summary) -> list[str]:
    empty, whole = done.counts["empty"], done.counts["requests"]
    if not empty:
        return []
    named = [*map(str, done.empty), *(["..."] if empty > len(done.empty) else [])]
    return [
        f"{empty:,} of {whole:,} requests {'has' if empty == 1 else 'have'} no candidate left: "
        f"{', '.join(named)}"
    ]
