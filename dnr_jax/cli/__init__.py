"""The program `dnr-jax`: check your own logs, train and use models, examine the machine.

There is one file per subcommand. Slow imports happen only when it runs: `--help` loads no JAX.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

import dnr_jax
from dnr_jax import console
from dnr_jax.cli.check import check
from dnr_jax.cli.doctor import doctor
from dnr_jax.cli.export import export
from dnr_jax.cli.merge import merge
from dnr_jax.cli.retrieve import retrieve
from dnr_jax.cli.robustness import robustness
from dnr_jax.cli.score import pack, score
from dnr_jax.cli.serve import serve
from dnr_jax.cli.train import train

NAME = "dnr-jax"
COMMANDS = (doctor, check, train, retrieve, score, export, serve, pack, merge, robustness)
_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _InOrder(click.Group):
    """Lists the commands in the order of use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(NAME, cls=_InOrder, context_settings=_SETTINGS, no_args_is_help=False)
@click.version_option(dnr_jax.__version__, prog_name=NAME, message="%(prog)s %(version)s")
def program() -> None:
    """Rerank the lists of a recommender, from your own logs to a model in service.

    \b
    dnr-jax check LOGS
    dnr-jax train LOGS --out MODEL
    dnr-jax score MODEL CANDIDATES --out RANKED.parquet
    dnr-jax serve MODEL
    """


for _command in COMMANDS:
    program.add_command(_command)


def start() -> None:
    """Run the command line as the whole of a process."""
    console.whole_process(main)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a usage error prints one line and exits with status 2."""
    console.catch_interrupts()
    try:
        sys.exit(program.main(arguments, prog_name=NAME, standalone_mode=False))
    except click.Abort:
        console.stop("nothing had begun")
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        called = context.command_path if context else NAME
        print(f"error: {_plain(error)} See {called} --help", file=sys.stderr)
        sys.exit(2)


def _plain(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    return text if text.endswith((".", "?")) else f"{text}."
