"""One experiment: from a config to a run folder that holds a whole result table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dnr_jax import json_files
from dnr_jax.data.store import Prepared
from dnr_jax.evaluation import audit, render
from dnr_jax.experiment import checks, datasets, players, processes, scoring, training
from dnr_jax.experiment.meter import Meter
from dnr_jax.experiment.processes import join
from dnr_jax.experiment.rows import Row, resolve
from dnr_jax.io import compiled, run_folder

__all__ = ["join", "run", "run_all"]

_LOG = logging.getLogger(__name__)


def run_all(config: Mapping[str, Any], workdir: Path) -> list[Path]:
    """Run the table of a config under each protocol that `config.candidates.name` lists.

    One protocol fills `workdir` itself, several a folder each in it, named like the protocol. All
    are checked before the first is run, and one that has been run before is not run again.

    In a run of several processes (`join`) all call this with the same config, and the first alone
    writes to `workdir`.

    Returns:
      The run folders, in the order given; none in a process that is not the first.

    Raises:
      ValueError, FileNotFoundError, NonFiniteError: see `run`.
    """
    names = [name.strip() for name in config["candidates"]["name"].split(",")]
    if len(set(names)) < len(names):
        raise ValueError(f"config.candidates.name lists a protocol twice: {','.join(names)}")
    parts = [{**config, "candidates": {**config["candidates"], "name": name}} for name in names]
    for part in parts:
        checks.check(part, resolve(part))
    folders = [workdir / name if len(names) > 1 else workdir for name in names]
    meter = Meter(sum(len(resolve(part)) for part in parts))
    for number, (part, folder) in enumerate(zip(parts, folders, strict=True), 1):
        if len(names) > 1:
            _LOG.info("protocol %d of %d: %s", number, len(names), names[number - 1])
        run(part, folder, meter)
    return folders if processes.is_first() else []


def run(config: Mapping[str, Any], workdir: Path, meter: Meter | None = None) -> None:
    """Train and evaluate every row of a config; go on where an interrupted run left off.

    Args:
      config: the resolved config as nested plain dicts; see `configs/common.py`.
      workdir: the run folder; made if missing.
      meter: counts the rows where this table is one of several.

    Raises:
      ValueError: a knob, the data or the folder is not usable; said before any long work.
      FileNotFoundError: the data path does not exist.
      NonFiniteError: training diverged; the last good checkpoint is kept.
    """
    rows = resolve(config)
    checks.check(config, rows)
    compiled.keep(Path(config["cache"]).expanduser() / "compiled")
    with (
        processes.folder(workdir) as place,
        run_folder.open_run(place, config) as folder,
    ):
        data = datasets.plan_of(config)
        prepared = processes.first_then_all(lambda: datasets.prepare(data))
        checks.check_sizes(config, prepared)
        teams = players.build_all(rows, prepared)
        _audit(config, prepared, folder)
        meter = meter or Meter(len(rows))
        for row, team in zip(rows, teams, strict=True):
            _LOG.info("%s", meter.begin(row.label))
            if not processes.of_first(np.asarray(scoring.is_done(row, folder))):
                _finish_row(row, team, prepared, folder)
                meter.worked()
        if processes.is_first():
            _write_results(rows, prepared, folder)


def _write_results(rows: list[Row], prepared: Prepared, folder: run_folder.RunFolder) -> None:
    records, columns = scoring.collect(rows, folder)
    folder.write_per_request(columns)
    folder.write_json(run_folder.RESULTS, {"data": prepared.fingerprint, "rows": records})


def _finish_row(
    row: Row, team: players.Players, prepared: Prepared, folder: run_folder.RunFolder
) -> None:
    trivial = row.config["reranker"]["name"] in players.TRIVIAL
    with compiled.counted() as count:
        progress = None if trivial else training.train(row, team, prepared, folder)
        scoring.score_row(row, team, progress, prepared, folder)
    folder.append_timings(
        {
            "row": row.key,
            "programs": count.programs,
            "programs_from_cache": count.from_cache,
            "compile_seconds": count.seconds,
        }
    )


def _audit(config: Mapping[str, Any], prepared: Prepared, folder: run_folder.RunFolder) -> None:
    _refuse_changed_data(prepared, folder)
    findings = audit(prepared, k=config["eval"]["k"], protocol=config["candidates"]["name"])
    content = {"fingerprint": prepared.fingerprint, "data": prepared.report, "audit": findings}
    folder.write_json(run_folder.AUDIT, content)
    _LOG.info("%s", render(findings))


def _refuse_changed_data(prepared: Prepared, folder: run_folder.RunFolder) -> None:
    """Keep rows that were trained on different data out of one table."""
    path = folder.path / run_folder.AUDIT
    saved = json_files.read(path)["fingerprint"] if path.exists() else prepared.fingerprint
    if saved != prepared.fingerprint:
        raise ValueError(
            f"run folder {folder.path} was made with data {saved}, now it is "
            f"{prepared.fingerprint}: the input files or the code that reads them have changed; "
            "choose another --workdir or delete this folder"
        )
