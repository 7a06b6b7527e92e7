"""A campaign of kills, damaged files and full disks: does any result change silently?

    python -m benchmarks.faults --kills 200 --faults 500 --limits 40 --out docs/faults.md

Short runs on simulated data are killed at random moments of every stage (by SIGKILL, some by
SIGTERM and SIGINT, some twice), or started on a run folder or cache in which one file was damaged,
or under a limit on the size of files, as on a full disk. Each is then run to its end and compared,
byte for byte, with an undisturbed run. These must not happen: a result that differs silently, an
incomplete file under its final name, a traceback, a run that hangs.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks import damage, disturbed, fault_report
from benchmarks.disturbed import Case, Ended, Place
from benchmarks.fault_report import Outcome
from dnr_jax.io import environment

AGAIN = 0.3  # share of kills that are followed by another


def judge(ended: Ended, place: Place, case: Case, word: str = "") -> str:
    """Describe the outcome of a run; see `Outcome`."""
    if ended.traceback:
        return "traceback"
    if ended.status < 0:
        return "hangs"
    if ended.status > 0:
        return "refused" if "error: " in ended.text else "traceback"
    if not damage.differing(place.workdir, case.reference):
        return "same"
    return "told" if word and word in ended.text else "differs"


def try_kill(case: Case, stage_name: str, folder: Path, draw: random.Random) -> Outcome:
    """Kill a run once or twice, then let it end."""
    stage, number = disturbed.STAGES[stage_name], disturbed.pick_signal(draw)
    cache = disturbed.copy_cache(case.home / "cache", folder / "cache", stage.missing)
    place = Place(folder / "run", cache)
    delay = draw.uniform(0, case.spans[stage_name])
    first = disturbed.kill(disturbed.start(case.arguments, place), place, stage, delay, number)
    ends, torn = [first], damage.torn(folder)
    if draw.random() < AGAIN:
        delay = draw.uniform(0, case.spans["start"])
        process = disturbed.start(case.arguments, place)
        ends.append(disturbed.kill(process, place, disturbed.STAGES["start"], delay, number))
        torn += damage.torn(folder)
    ends.append(disturbed.finish(disturbed.start(case.arguments, place)))
    names = damage.differing(place.workdir, case.reference)
    verdict = "traceback" if any(end.traceback for end in ends) else _after(ends[-1], place, case)
    text = "\n".join([*(end.story for end in ends), f"different: {names}"])
    effective = first.status != 0
    return _outcome("kill", (stage_name, number.name), case, verdict, torn, effective, text)


def try_fault(
    case: Case, state: str, target: str, name: str, folder: Path, draw: random.Random
) -> Outcome:
    """Damage one file of a run folder or its cache, then let the run continue to its end."""
    place = Place(folder / "run", disturbed.copy_cache(case.home / "cache", folder / "cache"))
    shutil.copytree(case.home / state, place.workdir)
    path = draw.choice(targets(place)[target])
    own = path.read_bytes()
    path.unlink()  # it may be a hard link to the campaign's own
    path.write_bytes(own)
    damage.DAMAGES[name](path, draw)
    ended = disturbed.finish(disturbed.start(case.arguments, place))
    verdict = judge(ended, place, case, word=path.name)
    torn = damage.torn(place.workdir, but=path) if verdict in ("same", "told") else []
    return _outcome("fault", (target, name), case, verdict, torn, True, ended.story)


def try_limit(case: Case, limit: int, folder: Path, draw: random.Random) -> Outcome:
    """Run with files limited to `limit` bytes, then continue without the limit."""
    missing = draw.choice([stage.missing for stage in disturbed.STAGES.values()])
    cache = disturbed.copy_cache(case.home / "cache", folder / "cache", missing)
    place = Place(folder / "run", cache)
    first = disturbed.finish(disturbed.start(case.arguments, place, limit=limit))
    torn = damage.torn(folder)
    last = disturbed.finish(disturbed.start(case.arguments, place))
    silent = first.status and "error: " not in first.text
    verdict = "traceback" if first.traceback or silent else _after(last, place, case)
    text = f"{first.story}\n{last.story}"
    size = f"{10 ** len(str(limit)):,}"
    return _outcome("limit", ("below", size), case, verdict, torn, first.status != 0, text)


def _after(ended: Ended, place: Place, case: Case) -> str:
    """Judge the run after a kill or a full disk, where the run must not refuse to continue."""
    verdict = judge(ended, place, case)
    return "not resumed" if verdict == "refused" else verdict


def _outcome(
    kind: str,
    what: tuple[str, str],
    case: Case,
    verdict: str,
    torn: list[str],
    effective: bool,
    text: str,
) -> Outcome:
    found = Outcome(kind, what, case.name, verdict, torn, effective, text)
    return found if found.bad else found._replace(text="")


def targets(place: Place) -> dict[str, list[Path]]:
    """Group the files of a run folder and its cache by kind."""
    groups: dict[str, list[Path]] = collections.defaultdict(list)
    for root, name in ((place.workdir, "run"), (place.cache, "cache")):
        for path in sorted(p for p in root.rglob("*") if p.is_file() and p.stat().st_size):
            groups[_group(name, path.relative_to(root))].append(path)
    return dict(groups)


def _group(root: str, path: Path) -> str:
    """Name the group of a file: `run/rows/*.json`, `run/checkpoints/seal.json`."""
    first = path.parts[0]
    if len(path.parts) == 1:
        return f"{root}/{first}"
    if path.name in ("seal.json", "manifest.json"):
        return f"{root}/{first}/{path.name}"
    if first == "checkpoints":
        return f"{root}/{first}/arrays"
    return f"{root}/{first}/*{path.suffix}"


Task = Callable[[Path, random.Random], Outcome]


def plan(cases: list[Case], sizes: argparse.Namespace, draw: random.Random) -> list[Task]:
    """Draw the disturbances: stages in turn, faults a random part of the table; in random order."""
    stages, count = list(disturbed.STAGES), len(cases)
    kills: list[Task] = [
        partial(try_kill, cases[n % count], stages[n // count % len(stages)])
        for n in range(sizes.kills)
    ]
    table = [
        (case, state, target, name)
        for case in cases
        for state in ("finished", "unfinished")
        for target in targets(Place(case.home / state, case.home / "cache"))
        for name in damage.DAMAGES
    ]
    draw.shuffle(table)
    chosen = (table[n % len(table)] for n in range(sizes.faults))
    faults: list[Task] = [partial(try_fault, *entry) for entry in chosen]
    limits: list[Task] = [
        partial(try_limit, cases[n % count], int(10 ** draw.uniform(2, 6.5)))
        for n in range(sizes.limits)
    ]
    tasks = [*kills, *faults, *limits]
    draw.shuffle(tasks)  # so part of a campaign covers all kinds
    return tasks


def campaign(folder: Path, sizes: argparse.Namespace) -> list[Outcome]:
    """Make the undisturbed runs, then try all disturbances, several at a time."""
    cases = [disturbed.make_case(name, folder / name) for name in sizes.cases.split(",")]
    tasks = plan(cases, sizes, random.Random(sizes.seed))
    found = recorded(sizes.record)
    waiting = [number for number in range(len(tasks)) if number not in found]
    with ThreadPoolExecutor(sizes.workers) as pool:
        outcomes = pool.map(partial(_try, folder, sizes.seed), waiting, [tasks[n] for n in waiting])
        for number, outcome in zip(waiting, outcomes, strict=True):
            found[number] = outcome
            record(sizes.record, number, outcome)
            if outcome.bad or len(found) % 20 == 0:
                said = f"{outcome.verdict}: {outcome.kind} {' '.join(outcome.what)}"
                print(f"{len(found)} of {len(tasks)}; {said}", file=sys.stderr, flush=True)
    return [found[number] for number in sorted(found)]


def recorded(path: Path | None) -> dict[int, Outcome]:
    """Read the outcomes of an earlier call of the same command, by number; none if no file."""
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row.pop("number"): Outcome(**row | {"what": tuple(row["what"])}) for row in rows}


def record(path: Path | None, number: int, outcome: Outcome) -> None:
    """Append an outcome to the file of outcomes, if there is one."""
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps({"number": number} | outcome._asdict()) + "\n")


def _try(folder: Path, seed: int, number: int, task: Task) -> Outcome:
    """Try one disturbance in its own folder, with its own random draws."""
    own = folder / f"try-{number}"
    own.mkdir()
    try:
        return task(own, random.Random(f"{seed}-{number}"))
    finally:
        disturbed.remove(own)


def main(sizes: argparse.Namespace) -> None:
    """Run the campaign, write its tables, and exit with 1 if something bad has happened."""
    if sizes.smoke:
        sizes.kills, sizes.faults, sizes.limits, sizes.cases = 1, 2, 1, "recflow"
    with tempfile.TemporaryDirectory() as folder:
        found = campaign(Path(folder), sizes)
    text = fault_report.markdown(found, environment.describe())
    print(text)
    if sizes.out:
        sizes.out.write_text(text)
    sys.exit(any(outcome.bad for outcome in found))


def parser() -> argparse.ArgumentParser:
    """Make the parser of the campaign's options."""
    made = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--smoke", action="store_true", help="four tries: does it run at all?")
    made.add_argument("--kills", type=int, default=200, help="runs to kill")
    made.add_argument("--faults", type=int, default=500, help="files to damage")
    made.add_argument("--limits", type=int, default=40, help="runs under a limit on file sizes")
    made.add_argument("--cases", default=",".join(disturbed.CASES), help="which runs")
    made.add_argument("--workers", type=int, default=2, help="runs at a time")
    made.add_argument("--seed", type=int, default=0, help="of all draws but the scheduler's")
    made.add_argument(
        "--record", type=Path, help="JSON lines, one a try; the same command goes on from there"
    )
    made.add_argument("--out", type=Path, help="also write the tables to this Markdown file")
    return made


if __name__ == "__main__":
    main(parser().parse_args())
