"""Train and compare denoising rerankers: one config in, one result table out.

  python -m dnr_jax.main --config configs/recflow.py                the whole table, simulated
  python -m dnr_jax.main --config configs/recflow.py:smoke          a short one, under a minute
  python -m dnr_jax.main --config configs/movielens.py --config.data.path=DIR   your download
  ... --config.table=score,dnr_b                                    some rows only
  ... --config.objective.lambda_adv=0.0                             an ablation
  ... --config.candidates.name=retrieved_pool,exposed_plus_sampled  protocol after protocol

A run writes its config, environment, metrics, checkpoints, results, tables and plots to --workdir.
Started again with the same --workdir it goes on where it was and ends with the same numbers.

Several processes, on one machine or many, train one run together: start the same command in each
with --coordinator=HOST:PORT --processes=N --process=I, I from 0. The first writes to --workdir.

Any knob of the config is set by --config.SECTION.KNOB=VALUE. The knobs, with their defaults and
meanings, stand in configs/common.py and in the config file itself.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "config file, with an optional preset: FILE.py or FILE.py:PRESET"
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "run folder; default: runs/CONFIG-PRESET-PROTOCOL in the current folder"
)


_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of the first process, in a run of several processes"
)
_PROCESSES = flags.DEFINE_integer("processes", 1, "how many processes run together")
_PROCESS = flags.DEFINE_integer("process", 0, "which of them this is, from 0")


def _parse(argv: list[str]) -> list[str]:
    """Parse flags; a mistake in them ends in one line, not in a traceback."""
    if "--help" in argv:
        app.usage(shorthelp=True, writeto_stdout=True)
        sys.exit(0)  # absl's own --help exits with 1
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _CONFIG.value.to_dict()  # a config file that is not there is reported on first use
    except (KeyError, AttributeError) as error:
        text = str(error).replace("\\n", "\n").replace("\\'", "").strip("\"' ")
        sys.exit(f"unknown config key: {' '.join(text.split())}")
    except (flags.Error, OSError) as error:
        reason = str(error).strip().splitlines()[-1].strip()  # what stands above is a traceback
        sys.exit(f"error: {reason}\nSee python -m dnr_jax.main --help")
    if _CONFIG.value is None or len(rest) > 1:
        seen = f"what to do with {rest[1:]}?" if len(rest) > 1 else "no --config was given"
        sys.exit(f"error: {seen}\nSee python -m dnr_jax.main --help")
    return rest


def _default_workdir() -> str:
    name, _, preset = _config_argument().partition(":")
    protocols = _CONFIG.value.candidates.name.replace(",", "+")
    parts = [Path(name).stem, preset, protocols]
    return str(Path("runs") / "-".join(part for part in parts if part))


def _config_argument() -> str:
    return flags.FLAGS["config"].config_filename  # type: ignore[attr-defined]


def _main(_: list[str]) -> None:
    _log_plainly()
    # Imported here: --help and a misspelt key answer at once, without loading JAX.
    from dnr_jax import experiment, reports

    workdir = Path(_WORKDIR.value or _default_workdir())
    try:
        if _COORDINATOR.value:
            experiment.join(_COORDINATOR.value, processes=_PROCESSES.value, process=_PROCESS.value)
        folders = experiment.run_all(_CONFIG.value.to_dict(), workdir)
    except (ValueError, FileNotFoundError, ArithmeticError) as error:
        sys.exit(f"error: {error}")
    for folder in folders:
        print(reports.write(folder))
    if len(folders) > 1:
        print(reports.write_overview(workdir, folders))


def _log_plainly() -> None:
    """Show this package's messages without prefixes, and only warnings of other packages."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("dnr_jax")
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if _PROCESS.value else logging.INFO)
    logger.propagate = False


def main() -> None:
    """Run the command line."""
    app.run(_main, flags_parser=_parse)


if __name__ == "__main__":
    main()
