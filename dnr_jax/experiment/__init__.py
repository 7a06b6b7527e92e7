"""One experiment: from a config to a run folder that holds a whole result table."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dnr_jax import json_files
from dnr_jax.data.store import Prepared
from dnr_jax.evaluation import audit, refuse_unmeasurable, render
from dnr_jax.experiment import (
    compiling,
    datasets,
    models,
    processes,
    saved,
    scoring,
    sizes,
    training,
)
from dnr_jax.experiment.assembly import Job, assemble
from dnr_jax.experiment.compiling import Ready
from dnr_jax.experiment.copies import copy_run
from dnr_jax.experiment.merging import merge_runs
from dnr_jax.experiment.meter import Meter
from dnr_jax.experiment.plan import Plan, make_plan
from dnr_jax.experiment.processes import join
from dnr_jax.experiment.recovered import run_data
from dnr_jax.io import compiled, event_files, lock, run_folder

__all__ = ["copy_run", "join", "make_plan", "merge_runs", "run", "run_all", "run_data"]

_LOG = logging.getLogger(__name__)


def run_all(
    config: Mapping[str, Any], workdir: str | os.PathLike[str], *, tensorboard: bool = False
) -> list[Path]:
    """Run the table of a config for each retriever and under each protocol that it lists.

    They are listed by `config.retriever.name` and `config.candidates.name`. A single table fills
    `workdir` itself. Several tables get one folder each in it, named after the retriever, the
    protocol, or both. All tables are checked, and for several all data prepared, before the first
    is run. A table that was finished before is not run again.

    In a run of several processes (`join`), all call this with the same config, and only the first
    writes to `workdir`.

    Args:
      config: what differs from the defaults, as nested plain data; see `configs/`.
      workdir: the run folder, or the folder of run folders; made if missing.
      tensorboard: whether each run folder also gets training records as TensorBoard's event files.

    Returns:
      The run folders, in the order given; none in a process that is not the first.

    Raises:
      ValueError, FileNotFoundError, NonFiniteError: see `make_plan` and `run`; or the package that
        writes event files is not installed.
    """
    if tensorboard:
        event_files.require()
    plans, workdir = _checked(config), Path(workdir)
    several = len(plans) > 1
    names = _names(plans)
    folders = [workdir / name for name in names]
    meter = Meter(sum(len(plan.rows) for plan in plans))
    with lock.held(workdir) if several and processes.is_first() else nullcontext():
        if several:
            _prepare_all(plans, names)
        for number, (plan, folder) in enumerate(zip(plans, folders, strict=True), 1):
            if several:
                _LOG.info("table %d of %d: %s", number, len(plans), folder.name)
            run(plan, folder, meter, tensorboard=tensorboard)
    return folders if processes.is_first() else []


def estimate(config: Mapping[str, Any]) -> list[str]:
    """Say in words what a run would read, and roughly what that costs; nothing is written.

    Raises:
      ValueError, FileNotFoundError: see `make_plan` and `datasets.estimate`.
    """
    return datasets.estimate(_checked(config)[0].data)


def _checked(config: Mapping[str, Any]) -> tuple[Plan, ...]:
    plans = make_plan(config)
    for plan in plans:
        datasets.check(plan.data)
    return plans


def _prepare_all(plans: Sequence[Plan], names: Sequence[str]) -> None:
    """Prepare all data first, so a fault in the last table's data shows before any training."""
    for number, (plan, name) in enumerate(zip(plans, names, strict=True), 1):
        _LOG.info("data %d of %d: %s", number, len(plans), name)
        processes.first_then_all(partial(datasets.arrays, plan.data))


def _names(plans: Sequence[Plan]) -> list[str]:
    """Name the folder of each plan after what differs between plans; "" for a single one."""
    many_retrievers = len({plan.retriever for plan in plans}) > 1
    many_protocols = len({plan.protocol for plan in plans}) > 1
    return [
        "-".join([plan.retriever] * many_retrievers + [plan.protocol] * many_protocols)
        for plan in plans
    ]


def run(
    plan: Plan, workdir: Path, meter: Meter | None = None, *, tensorboard: bool = False
) -> None:
    """Train and evaluate every row of a plan; continue where an interrupted run stopped.

    Args:
      plan: one table.
      workdir: the run folder; made if missing.
      meter: counts the rows if this table is one of several.
      tensorboard: see `run_all`.

    Raises:
      ValueError: the data or the folder is not usable; raised before any long work.
      FileNotFoundError: the data path does not exist.
      NonFiniteError: training diverged; the last good checkpoint is kept.
    """
    meter = meter or Meter(len(plan.rows))
    compiled.keep(plan.cache / "compiled")
    with (
        processes.folder(workdir) as place,
        run_folder.open_run(
            place, saved.describe(plan), saved.defaults(plan), tensorboard=tensorboard
        ) as folder,
    ):
        prepared = processes.first_then_all(partial(_prepare, plan, folder))
        sizes.check(plan, prepared)
        parts = assemble(plan, prepared)
        _audit(plan, prepared, folder)
        if prepared.timings:
            folder.append_timings({"row": run_folder.FIRST_STAGE, **prepared.timings})
        models.save_shared(plan, prepared, folder)
        rows = zip(plan.rows, parts, strict=True)
        for row in compiling.ahead(Job(plan, *of_row, prepared, folder) for of_row in rows):
            _LOG.info("%s", meter.begin(row.job.row.label))
            if not processes.of_first(np.asarray(scoring.is_done(row.job.row, folder))):
                _finish(row)
                meter.worked()
        if processes.is_first():
            scoring.write_table([row.key for row in plan.rows], folder.path, prepared.fingerprint)


def _finish(row: Ready) -> None:
    job = row.job
    with compiled.counted(row.made) as count:
        progress = training.train(row) if job.row.trains else None
        scoring.score_row(job, progress)
    job.run.append_timings(
        {
            "row": job.row.key,
            "programs": count.programs,
            "programs_from_cache": count.from_cache,
            "compile_seconds": count.seconds,
        }
    )


def _prepare(plan: Plan, folder: run_folder.RunFolder) -> Prepared:
    _refuse_changed_data(plan, folder)
    return datasets.prepare(plan.data)


def _audit(plan: Plan, prepared: Prepared, folder: run_folder.RunFolder) -> None:
    findings = audit(prepared, k=plan.eval.k, protocol=plan.protocol)
    content = {"fingerprint": prepared.fingerprint, "data": prepared.report, "audit": findings}
    folder.write_json(run_folder.AUDIT, content)
    _LOG.info("%s", render(findings))
    refuse_unmeasurable(prepared)


def _refuse_changed_data(plan: Plan, folder: run_folder.RunFolder) -> None:
    """Refuse a run folder made with other data than now; no data is prepared yet."""
    path = folder.path / run_folder.AUDIT
    if not path.exists():
        return
    cure = "delete it if the data are still what they were, else the whole run folder"
    saved = json_files.read(path, keys=("fingerprint",), cure=cure)["fingerprint"]
    now = datasets.place(plan.data).name
    if saved != now:
        raise ValueError(
            f"run folder {folder.path} was made with data {saved}, now they are {now}: the input "
            "files or the code that reads them have changed; choose another --workdir or delete "
            "this folder"
        )
