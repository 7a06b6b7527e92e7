"""The option `--cache` of the commands that have one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def cache_option(holds: str) -> Callable[[Any], Any]:
    """Make the option; `holds` says what the command keeps or looks for in the folder."""
    return click.option(
        "--cache",
        type=click.Path(path_type=Path),
        default=Path("~/.cache/dnr_jax"),
        show_default=True,
        help=f"Folder of {holds}.",
    )
