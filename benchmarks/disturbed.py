"""Disturb runs: start, watch, kill, limit and restart them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import damage, quick_compile

ROOT = Path(__file__).parents[1]
SHORT = ("--config.table=retriever,dnr_b", "--config.train.epochs=4", "--config.train.lambda_e=2")
ROW = "dnr_b"  # the row that is trained
CASES = {
    "recflow": ("--config", "configs/recflow.py:smoke", *SHORT),
    "movielens": (
        *("--config", "configs/movielens.py:smoke", *SHORT),
        "--config.data.simulate.users=150",
    ),
}
PATIENCE_SECONDS = 300
TRACEBACK = "Traceback (most recent call last)"
KEPT = 2000  # characters of a bad run's output, from its traceback on and at its end
# Programs of a copied cache are found: with XLA's own caches its path would be in their names.
MOVABLE = {"JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none"}
FAST = {"XLA_FLAGS": quick_compile.FLAGS}
# Drops root's privileges, so unreadable files really are unreadable; limits file sizes.
LOWERED = """
import ctypes, os, resource, sys
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL: it does not outlive the campaign
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
if limit := int(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
Popen = subprocess.Popen[str]


class Place(NamedTuple):
    """Where a run writes."""

    workdir: Path
    cache: Path


class Ended(NamedTuple):
    """How a run ended: its exit status (negative: by that signal), and all that it printed."""

    status: int
    text: str

    @property
    def traceback(self) -> bool:
        """Whether a user would have seen a traceback, or a crash of the interpreter."""
        crashed = self.status in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS)
        return TRACEBACK in self.text or crashed

    @property
    def story(self) -> str:
        """The part for the report: the traceback, if there is one, the end, and the exit status."""
        begin = self.text.find(TRACEBACK)
        traceback = self.text[max(begin - 200, 0) : begin + KEPT] if begin >= 0 else ""
        return f"{traceback}\n{self.text[-KEPT:]}\n[status {self.status}]"


class Stage(NamedTuple):
    """A stage of a run: which part of the cache is missing, and how to detect that it began."""

    missing: tuple[str, ...]
    begun: Callable[[Place], bool]


def _some(folder: Path, pattern: str) -> bool:
    return next(folder.glob(pattern), None) is not None


STAGES = {
    "start": Stage((), lambda place: True),  # a kill after it falls anywhere
    "preparation": Stage(("prepared", "simulated"), lambda place: _some(place.cache, "*/.*")),
    "compile": Stage(("compiled",), lambda place: (place.workdir / "audit.json").exists()),
    "checkpoint": Stage((), lambda place: _some(place.workdir, "checkpoints/*/last")),
    "row": Stage((), lambda place: _some(place.workdir, f"analysis/*{ROW}*")),
    "report": Stage((), lambda place: (place.workdir / "results.json").exists()),
}


COLD = ("preparation", "compile")  # timed with an empty cache


class Case(NamedTuple):
    """A run to disturb.

    Attributes:
      name, arguments: of `dnr_jax.main`.
      home: holds `cache`, and the run folders `finished` and `unfinished`.
      reference: content by name of the undisturbed run's files.
      spans: seconds that each stage lasts; `start` is the whole run.
    """

    name: str
    arguments: tuple[str, ...]
    home: Path
    reference: dict[str, bytes]
    spans: dict[str, float]


def start(arguments: tuple[str, ...], place: Place, *, limit: int = 0) -> Popen:
    """Start a run; with `limit`, no file that it writes may be larger, in bytes."""
    command = [sys.executable, "-c", LOWERED, str(limit), "-m", "dnr_jax.main", *arguments]
    command += [f"--config.cache={place.cache}", "--workdir", str(place.workdir)]
    own = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=own | MOVABLE | FAST | {"PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        pipesize=2**20,  # nothing is read before the end
    )


def finish(process: Popen) -> Ended:
    """Wait for a run; one that hangs is killed and ends with status -SIGKILL."""
    try:
        text, _ = process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text, _ = process.communicate()
    return Ended(process.returncode, text)


def kill(process: Popen, place: Place, stage: Stage, delay: float, number: int) -> Ended:
    """Send signal `number`, `delay` seconds after the stage has begun."""
    while process.poll() is None and not stage.begun(place):
        time.sleep(0.002)
    try:
        process.wait(timeout=delay)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    return finish(process)


def copy_cache(source: Path, target: Path, missing: tuple[str, ...] = ()) -> Path:
    """Copy a cache by hard links: runs replace its files and never write into them."""
    shutil.copytree(source, target, copy_function=os.link, ignore=lambda _, names: missing)
    return target


def remove(folder: Path) -> None:
    """Remove a folder, even if it holds unreadable files."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)


def make_case(name: str, home: Path) -> Case:
    """Run a case undisturbed, time its stages, and leave a run killed half-way.

    Raises:
      RuntimeError: the undisturbed run fails, or a second one differs from it.
    """
    arguments, cache = CASES[name], home / "cache"
    finished = Place(home / "finished", cache)
    spans = _timed(arguments, finished)
    reference = damage.results(finished.workdir)
    again = Place(home / "again", cache)
    spans |= {n: s for n, s in _timed(arguments, again).items() if n not in COLD}
    if different := damage.differing(again.workdir, reference):
        raise RuntimeError(f"{name}: two undisturbed runs differ in {different}")
    case = Case(name, arguments, home, reference, spans)
    _leave_unfinished(case)
    _compile_resumed(case)
    return case


def _timed(arguments: tuple[str, ...], place: Place) -> dict[str, float]:
    """Run to the end; return the seconds of each stage; `start` is the whole run."""
    process, begun = start(arguments, place), {}
    while process.poll() is None:
        for name, stage in STAGES.items():
            if name not in begun and stage.begun(place):
                begun[name] = time.monotonic()
        time.sleep(0.002)
    ended = finish(process)
    if ended.status:
        raise RuntimeError(f"the undisturbed run failed:\n{ended.text}")
    begins = [*(begun[name] for name in STAGES if name in begun), time.monotonic()]
    ends = [begins[-1], *begins[2:]]
    return {name: end - begun[name] for name, end in zip(begun, ends, strict=True)}


def _leave_unfinished(case: Case) -> None:
    """Kill runs until one has left a checkpoint of the learned phase and no result."""
    place = Place(case.home / "unfinished", case.home / "cache")
    learned = Stage((), lambda p: _some(p.workdir, f"checkpoints/{ROW}/last/00000003"))
    for _ in range(20):
        shutil.rmtree(place.workdir, ignore_errors=True)
        kill(start(case.arguments, place), place, learned, 0.0, signal.SIGKILL)
        if learned.begun(place) and not _some(place.workdir, f"rows/{ROW}.json"):
            return
    raise RuntimeError(f"{case.name}: every run was over before it could be killed")


def _compile_resumed(case: Case) -> None:
    """Put the programs of a resumed run into the cache, so tries need not compile them again."""
    place = Place(case.home / "resumed", case.home / "cache")
    shutil.copytree(case.home / "unfinished", place.workdir)
    finish(start(case.arguments, place))


def pick_signal(draw: random.Random) -> signal.Signals:
    """Choose the signal to kill with: mostly SIGKILL, which gives no warning."""
    return draw.choices((signal.SIGKILL, signal.SIGTERM, signal.SIGINT), (8, 1, 1))[0]
