"""`dnr-jax doctor`: check that the machine has everything that a run needs."""

from __future__ import annotations

from pathlib import Path

import click

from dnr_jax import console
from dnr_jax.cli.cache import cache_option


@click.command(short_help="Are versions, devices, cache, memory and disk as needed?")
@click.option(
    "--device",
    type=click.Choice(["cpu", "gpu", "tpu"]),
    help="The accelerator that you mean to use: it must be there and compute.",
)
@cache_option("prepared arrays and compiled programs, as --config.cache of a run")
@click.pass_context
def doctor(context: click.Context, device: str | None, cache: Path) -> None:
    """Examine this machine: versions, devices, cache folder, free memory and disk.

    Exits with 1 if anything is missing.
    """
    with console.one_line("nothing was changed"):
        from dnr_jax.io import health

        found = health.examine(device, cache.expanduser())
        for finding in found:
            click.echo(f"{'ok     ' if finding.ok else 'MISSING'}  {finding.words}")
        if not all(finding.ok for finding in found):
            context.exit(1)
