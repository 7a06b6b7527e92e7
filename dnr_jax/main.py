"""Train and compare denoising rerankers: one config in, one result table out.

  python -m dnr_jax.main --config recflow                           the whole table, simulated
  python -m dnr_jax.main --config recflow:smoke                     a short one, about a minute
  python -m dnr_jax.main --config movielens --config.data.path=DIR  your download
  python -m dnr_jax.main --config configs/recflow.py:smoke          a config file, with a preset
  ... --config.table=score,dnr_b                                    some rows only
  ... --config.objective.lambda_adv=0.0                             an ablation
  ... --config.candidates.name=retrieved_pool,exposed_plus_sampled  protocol after protocol
  ... --config.retriever.name=popularity,two_tower,sequential       first stage after first stage
  ... --dry_run                                                     rows, memory and minutes only

A run writes its config, environment, metrics, checkpoints, results, tables and plots to --workdir.
Started again with the same --workdir it goes on where it was and ends with the same numbers.

Several processes, on one machine or many, train one run together: start the same command in each
with --coordinator=HOST:PORT --processes=N --process=I, I from 0. The first writes to --workdir.

A config says what differs from the defaults. Any knob is set by --config.SECTION.KNOB=VALUE; its
default, range and meaning stand in the file of what it belongs to, as in dnr_jax/rerankers/prm.py.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from dnr_jax import config_files, console
from dnr_jax.settings import unknown_knob

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "run folder; default: runs/CONFIG-PRESET-PROTOCOL in the current folder"
)
_TENSORBOARD = flags.DEFINE_boolean(
    "tensorboard", False, "also write training curves as TensorBoard's event files"
)
_DRY_RUN = flags.DEFINE_boolean(
    "dry_run", False, "say what data would be read, and about what that takes; then end"
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of the first process, in a run of several processes"
)
_PROCESSES = flags.DEFINE_integer("processes", 1, "how many processes run together")
_PROCESS = flags.DEFINE_integer("process", 0, "which of them this is, from 0")
_OVERRIDE = re.compile(r"--?config\.([\w.]+)(?:=|$)")
_HELP = "See python -m dnr_jax.main --help"


def _parse(argv: list[str]) -> list[str]:
    """Parse flags; a mistake in them ends in one line, not in a traceback."""
    if "--help" in argv:
        app.usage(shorthelp=True, writeto_stdout=True)
        sys.exit(0)  # absl's own --help exits with 1
    name, rest = _take_config(argv)
    if name is None:
        sys.exit(f"error: no --config was given\n{_HELP}")
    try:
        whole = _whole(name)
        _refuse_unknown_knobs(whole, rest)
        config = ConfigDict(whole)
        config_flags.DEFINE_config_dict("config", config, "every knob of the run", sys_argv=rest)
        rest = flags.FLAGS(rest)
        _check_processes()
    except (flags.Error, ValueError, OSError) as error:
        sys.exit(f"error: {str(error).strip().splitlines()[-1].strip()}\n{_HELP}")
    if len(rest) > 1:
        sys.exit(f"error: unexpected arguments {rest[1:]}\n{_HELP}")
    return [rest[0], name]


def _check_processes() -> None:
    """Refuse a part of a run of several processes that would train on its own."""
    address, count, number = _COORDINATOR.value, _PROCESSES.value, _PROCESS.value
    if not 0 <= number < count:
        raise ValueError(
            f"--process={number} of --processes={count}: number them from 0 to --processes - 1"
        )
    if count > 1 and not address:
        raise ValueError(f"--processes={count} needs --coordinator=HOST:PORT, the first one's")


def _refuse_unknown_knobs(config: Mapping[str, Any], arguments: list[str]) -> None:
    """Refuse to set what the config does not have, naming place, nearest and known knobs."""
    for argument in arguments:
        match = _OVERRIDE.match(argument)
        place, node = "config", config
        for key in match[1].split(".") if match else ():
            if not isinstance(node, Mapping):
                raise ValueError(f"{place} is {node!r}: it has no knob {key!r}")
            if key not in node:
                known = {name: part for name, part in config.items() if name != "rows"}
                raise ValueError(f"{place}: {unknown_knob(key, node, known)}")
            place, node = f"{place}.{key}", node[key]


def _take_config(argv: list[str]) -> tuple[str | None, list[str]]:
    """Split `--config X` or `--config=X` from the other arguments; the last one counts."""
    name, rest = None, argv[:1]
    arguments = iter(argv[1:])
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag in ("--config", "-config"):
            name = value if equals else next(arguments, None)
        else:
            rest.append(argument)
    return name, rest


def _whole(name: str) -> dict[str, Any]:
    """Return the defaults with what the config file sets on top."""
    changes = config_files.load(name)
    # Imported here: --help and a missing config file answer at once, without loading JAX.
    from dnr_jax.experiment import sections

    return sections.complete(changes)


def _default_workdir(name: str, protocols: str, retrievers: str) -> Path:
    file, _, preset = name.partition(":")
    several = retrievers.replace(",", "+") if "," in retrievers else ""
    parts = [Path(file).stem, preset, protocols.replace(",", "+"), several]
    return Path("runs") / "-".join(part for part in parts if part)


def _main(argv: list[str]) -> None:
    config: dict[str, Any] = flags.FLAGS.config.to_dict()
    names = (config["candidates"]["name"], config["retriever"]["name"])
    default = _default_workdir(argv[1], *names)
    absl_logging.set_verbosity(absl_logging.WARNING)
    console.log_plainly(logging.WARNING if _PROCESS.value else logging.INFO)
    _run_or_say_why(config, Path(_WORKDIR.value or default))


def _run_or_say_why(config: dict[str, Any], workdir: Path) -> None:
    """Run a config; what stops it ends in one line."""
    with console.one_line(
        f"{workdir} holds every finished epoch; start the same command again to go on"
    ):
        _run(config, workdir)


def _run(config: dict[str, Any], workdir: Path) -> None:
    """Run every table of a config and print it."""
    from dnr_jax import experiment, reports

    if _DRY_RUN.value:
        print("\n".join(experiment.estimate(config)))
        return
    if _COORDINATOR.value:
        experiment.join(_COORDINATOR.value, processes=_PROCESSES.value, process=_PROCESS.value)
    folders = experiment.run_all(config, workdir, tensorboard=_TENSORBOARD.value)
    for folder in folders:
        print(reports.write(folder))
    if len(folders) > 1:
        print(reports.write_overview(workdir, folders))


def main() -> None:
    """Run the command line."""
    console.catch_interrupts()
    try:
        app.run(_main, flags_parser=_parse)
    except KeyboardInterrupt:
        console.stop("nothing had begun")


if __name__ == "__main__":
    console.whole_process(main)
