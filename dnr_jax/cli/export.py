"""`dnr-jax export`: write a trained model as a folder that runs without this package."""

from __future__ import annotations

from pathlib import Path

import click

from dnr_jax import console
from dnr_jax.io.os_errors import Words

_PATH = click.Path(path_type=Path)


@click.command(short_help="Write a model as a program that runs without this package.")
@click.argument("model", type=_PATH)
@click.option("--out", required=True, type=_PATH, help="The folder that is made.")
@click.option("--row", help="Which model of a run folder; not needed for a packed model.")
@click.option("--overwrite", is_flag=True, help="Replace an exported model, once all is done.")
def export(model: Path, out: Path, row: str | None, overwrite: bool) -> None:
    """Write a model as StableHLO with a loader that needs jax and numpy only.

    MODEL is a model folder, the folder `model` of an earlier export, or a run folder with --row.
    One file serves CPU, CUDA and TPU, any batch size and any number of candidates. Its program is
    read back and compared with the model first.
    """
    with console.one_line("nothing was written", Words("--out", "file")):
        from dnr_jax.serving import exporting

        about = exporting.export(model, row, out, overwrite=overwrite)
        click.echo(
            f"{out}: {about['reranker']} for {', '.join(about['platforms'])}, written by jax "
            f"{about['jax']}; {about['window']}. Then make it again: dnr-jax export {out}/model "
            "--out NEW"
        )
