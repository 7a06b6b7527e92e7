"""`dnr-jax train`: from a user's own logs to a model that is ready to serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnr_jax import console
from dnr_jax.cli import knobs
from dnr_jax.cli.cache import cache_option
from dnr_jax.io.os_errors import Words

if TYPE_CHECKING:
    from dnr_jax.experiment.own_logs import Advice

_PATH = click.Path(path_type=Path)
_WORDS = Words("--out, --workdir or --cache", "epoch")
_ON = "every finished epoch is kept; start the same command again to go on"


@click.command(short_help="Train rerankers on your own logs, keep the best one as a model.")
@click.argument("logs", type=_PATH)
@click.option("--out", required=True, type=_PATH, help="The model folder that is made.")
@click.option("--workdir", type=_PATH, help="Folder of the run and its tables; default: OUT.run.")
@click.option(
    "--data",
    default="table",
    show_default=True,
    metavar="KIND",
    help="interactions = rows of user, item, rating?, time: a retriever makes the candidates.",
)
@click.option("--schema", metavar="FILE", help="TOML or YAML: what your columns are.")
@click.option("--columns", metavar="PAIRS", help="As request_id=session,score=bm25; wins.")
@click.option("--item-file", metavar="FILE", help="Describes items, by item_id.")
@click.option("--user-file", metavar="FILE", help="Describes users, by user_id.")
@click.option(
    "--from", "earlier", type=_PATH, metavar="MODEL", help="Go on from this model on newer logs."
)
@click.option("--k", type=click.IntRange(1), help="Shown places K; default: 6.")
@click.option("--size", type=click.IntRange(2), help="Most candidates N; default: 50.")
@click.option(
    "--model", "row", metavar="ROW", help="Train this row alone, as dnr_b or sasrec_score."
)
@click.option(
    "--rows",
    metavar="ROWS",
    help="Compare these, as score,dnr_b,pier_score, beside the trivial scorers.",
)
@click.option(
    "--seeds", type=click.IntRange(1), help="Trainings of each row; default: 5, or 3 for many."
)
@click.option("--epochs", type=click.IntRange(1), help="Most epochs; default: by the data's size.")
@click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="KNOB=VALUE",
    help="Any knob of a run, as split_by=user or reranker.width=64. May be repeated.",
)
@click.option(
    "--tensorboard", is_flag=True, help="Write training curves as TensorBoard's event files too."
)
@click.option("--overwrite", is_flag=True, help="Replace a model that is there, once all is done.")
@cache_option("prepared arrays and compiled programs")
def train(logs: Path, out: Path, overwrite: bool, **options: Any) -> None:
    """Train rerankers on your own logs, compare them, and keep the best one as a model.

    LOGS is a Parquet, Arrow or CSV file or a folder of them, one row per candidate; with --data,
    files of that kind of data. The trained row with the best N@K on validation becomes the model.
    If interrupted, the same command resumes after the last finished epoch.

    With --from, an earlier model is trained further with its own settings: known values keep what
    they learned, and new ones are added.
    """
    with console.one_line(_ON, _WORDS):
        console.log_plainly()
        from dnr_jax import experiment, reports, serving
        from dnr_jax.experiment import newer_logs, own_logs
        from dnr_jax.io import event_files

        serving.check_out(out, overwrite=overwrite)
        if options["tensorboard"]:
            event_files.require()
        advice = _advice(logs, options)
        click.echo("\n".join(advice.words))
        workdir = options["workdir"] or out.with_name(f"{out.name}.run")
        tensorboard = options["tensorboard"]
        [folder] = experiment.run_all(advice.config, workdir, tensorboard=tensorboard)
        table = reports.write(folder)
        choice = (newer_logs if options["earlier"] else own_logs).choose(folder)
        serving.pack(folder, choice.row, out, overwrite=overwrite)
        last = f"{out} can be copied anywhere; tables: {folder}"
        click.echo("\n".join([table, *choice.words, last]))


def _advice(logs: Path, options: dict[str, Any]) -> Advice:
    from dnr_jax.experiment import newer_logs, own_logs

    if not logs.exists():
        raise FileNotFoundError(f"there is no file or folder {logs}")
    given, rows, row = _given(logs, options), options["rows"], options["row"]
    if not options["earlier"]:
        return own_logs.advise(given, data=options["data"], table=rows or "", model=row or "")
    if options["data"] != own_logs.TABLE:
        raise ValueError("--from only continues models trained on log tables: leave --data out")
    if rows or row:
        raise ValueError("--from trains the row of the given model: leave --rows and --model out")
    return newer_logs.advise(options["earlier"].absolute(), given)


def _given(logs: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Turn the options into knobs; a pair of `--set` wins."""
    from dnr_jax.experiment import sections

    found = knobs.changes(options["pairs"], sections.defaults(options["data"]))
    own = {
        "data": ("schema", "columns", "item_file", "user_file"),
        "candidates": ("size",),
        "eval": ("k",),
        "train": ("seeds", "epochs"),
    }
    for section, names in own.items():
        said = {name: options[name] for name in names if options[name] is not None}
        found[section] = said | found.get(section, {})
    found["data"]["path"] = str(logs)
    return found | {"cache": str(options["cache"])}
