"""`dnr-jax check`: the content of a log table, and whether it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dnr_jax import console, settings
from dnr_jax.cli import knobs

if TYPE_CHECKING:
    from dnr_jax.data.table.settings import TableSettings


@click.command(short_help="What is in a log table, what is wrong with it, is there a leak?")
@click.argument("logs", type=click.Path(path_type=Path))
@click.option("--schema", default="", metavar="FILE", help="TOML or YAML: what your columns are.")
@click.option(
    "--columns", default="", metavar="PAIRS", help="As request_id=session,score=bm25; wins."
)
@click.option("--item-file", default="", metavar="FILE", help="Describes items, by item_id.")
@click.option("--user-file", default="", metavar="FILE", help="Describes users, by user_id.")
@click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="KNOB=VALUE",
    help="Any knob of config.data of a run on a table, as split_by=user. May be repeated.",
)
@click.option("--k", default=6, show_default=True, type=click.IntRange(1), help="Shown places K.")
@click.option(
    "--size", default=50, show_default=True, type=click.IntRange(2), help="Most candidates N."
)
@click.option("--quick", is_flag=True, help="Look at the values only: no metrics and no audit.")
@click.pass_context
def check(
    context: click.Context,
    logs: Path,
    schema: str,
    columns: str,
    item_file: str,
    user_file: str,
    pairs: tuple[str, ...],
    k: int,
    size: int,
    quick: bool,
) -> None:
    """Look at a log table: columns, counts, faults, the first stage's quality, leaks.

    LOGS is a Parquet, Arrow or CSV file or a folder of them, one row per candidate. Exits with 1 at
    the first fault, which is named by file, row and column, or if the audit finds a leak.
    """
    with console.one_line("nothing was written"):
        from dnr_jax.data.settings import Shape
        from dnr_jax.evaluation import log_check

        if k > size:
            raise ValueError(f"--size is {size}: choose at least as many as --k, {k}")
        own = {"schema": schema, "columns": columns, "item_file": item_file, "user_file": user_file}
        how, shape = _settings(own, pairs), Shape(size, k)
        found = (
            log_check.glance(logs, how)
            if quick
            else log_check.check_log(logs, how, shape, progress=True)
        )
        click.echo(f"{logs}\n{found}".rstrip())
        if found.audit is not None and found.audit["level"] == "LEAK":
            context.exit(1)


def _settings(own: Mapping[str, str], pairs: tuple[str, ...]) -> TableSettings:
    """Make settings from the options and the pairs of `--set`, parsing numbers where expected."""
    from dnr_jax.data.table.settings import TableSettings

    given = knobs.changes(pairs, {knobs.HOME: settings.defaults(TableSettings)})
    for section in given:
        settings.find("section of knobs here", section, {knobs.HOME: None})
    return settings.read(TableSettings, {**own, **given.get(knobs.HOME, {})}, knobs.HOME)
