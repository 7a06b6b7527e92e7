"""The campaign of faults sees what it is there to see: tried on runs that misbehave on purpose."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import damage, disturbed, fault_report, faults
from benchmarks.disturbed import Case, Place
from benchmarks.fault_report import Outcome

# A run of milliseconds: rows, a report, and a way to misbehave.
FAKE = """
import json, os, sys, time
from pathlib import Path
manner, limit, workdir = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
(workdir / "rows").mkdir(parents=True, exist_ok=True)
window = 60 if manner == "asleep" else 5 if manner in ("honest", "forgetful", "torn") else 0
row, again = workdir / "rows" / "a.json", (workdir / "begun").exists()
def write(path, text):
    if limit and len(text) > limit:
        sys.exit(f"error: {path}: File too large")
    (path.parent / ("." + path.name)).write_text(text)
    os.replace(path.parent / ("." + path.name), path)
if manner == "trusting" and row.exists():
    json.loads(row.read_text())  # a traceback for whoever has damaged it
elif row.exists():
    try:
        if json.loads(row.read_text()) != {"value": 1}:
            raise ValueError("changed")
    except ValueError:
        if manner == "careful":
            sys.exit(f"error: {row} is damaged: delete it")
        if manner == "open":
            print(f"{row} is damaged and was left as it is")
if manner != "open" or not row.exists():
    write(row, json.dumps({"value": 2 if again and manner == "forgetful" else 1}))
(workdir / "begun").write_text("")
print("row done", flush=True)
if manner == "torn":
    (workdir / "results.json").write_text('{"rows": [')
time.sleep(0 if again else window)
write(workdir / "results.json", '{"rows": [1]}')
"""


def test_of_a_bad_run_the_traceback_is_kept_however_much_follows():
    text = "x" * 9000 + "Traceback (most recent call last):\n  OSError: why\n" + "y" * 9000
    story = disturbed.Ended(-11, text).story
    assert "OSError: why" in story
    assert story.endswith("y\n[status -11]")
    assert len(story) < 5000


@pytest.fixture
def start(monkeypatch):
    """Make runs fake ones, of the manner that stands in place of the arguments."""

    def begin(arguments, place, *, limit=0):
        command = [sys.executable, "-c", FAKE, arguments[0], str(limit), *map(str, place)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, start_new_session=True, **pipes)

    monkeypatch.setattr(disturbed, "start", begin)
    return begin


@pytest.fixture
def make_case(start, tmp_path):
    def make(manner):
        home = tmp_path / "home"
        (home / "cache").mkdir(parents=True)
        (home / "cache" / "x.json").write_text("{}")
        place = Place(home / "finished", home / "cache")
        assert disturbed.finish(start(["plain"], place)).status == 0
        spans = dict.fromkeys(disturbed.STAGES, 0.2)
        return Case("fake", (manner,), home, damage.results(place.workdir), spans)

    return make


def own(tmp_path):
    folder = tmp_path / "try"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("manner", "verdict", "torn"),
    [("honest", "same", []), ("forgetful", "differs", []), ("torn", "same", ["results.json"])],
)
def test_kills(make_case, tmp_path, monkeypatch, manner, verdict, torn):
    monkeypatch.setattr(faults, "AGAIN", 0.0)
    monkeypatch.setattr(disturbed, "pick_signal", lambda draw: signal.SIGKILL)
    begun = "results.json" if torn else "begun"
    stage = disturbed.Stage((), lambda place: (place.workdir / begun).exists())
    monkeypatch.setitem(disturbed.STAGES, "report", stage)
    case = make_case(manner)
    found = faults.try_kill(case, "report", own(tmp_path), random.Random(0))
    assert found.effective
    assert found.verdict == verdict
    assert [Path(name).name for name in found.torn] == torn
    assert found.bad == (manner != "honest")


@pytest.mark.parametrize(
    ("manner", "verdict"),
    [("plain", "same"), ("careful", "refused"), ("open", "told"), ("trusting", "traceback")],
)
def test_damaged_files(make_case, tmp_path, manner, verdict):
    case = make_case(manner)
    target, draw = "run/rows/*.json", random.Random(0)
    found = faults.try_fault(case, "finished", target, "zeroed", own(tmp_path), draw)
    assert found.verdict == verdict
    assert found.bad == (verdict == "traceback")
    assert ("Traceback" in found.text) == found.bad


def test_limits_and_runs_that_hang(make_case, tmp_path, monkeypatch):
    case = make_case("plain")
    found = faults.try_limit(case, 5, own(tmp_path), random.Random(0))
    assert (found.verdict, found.effective) == ("same", True)
    monkeypatch.setattr(disturbed, "PATIENCE_SECONDS", 1)
    place = Place(tmp_path / "slow", case.home / "cache")
    ended = disturbed.finish(disturbed.start(("asleep",), place))
    assert faults.judge(ended, place, case) == "hangs"


def test_every_damage_changes_a_file_and_spares_its_hard_links(tmp_path):
    for name, change in damage.DAMAGES.items():
        source, copy = tmp_path / "source" / name, tmp_path / name
        source.mkdir(parents=True)
        for file in ("a.json", "b.json"):
            (source / file).write_text(f'{{"digit": 1, "name": "{file}"}}')
        disturbed.copy_cache(source, copy)
        path = copy / "a.json"
        whole = path.read_bytes()
        path.unlink()
        path.write_bytes(whole)
        change(path, random.Random(name))
        if name == "unreadable":
            assert path.stat().st_mode & 0o777 == 0
        else:
            assert not path.is_file() or path.read_bytes() != whole, name
        assert (source / "a.json").read_bytes() == whole
        disturbed.remove(copy)
        assert not copy.exists()


def test_torn_files_are_seen_and_temporary_ones_are_not(tmp_path):
    contents = {
        "a.json": b"{",
        "b.jsonl": b'{}\n{"a\n{}\n',
        "c.parquet": b"PAR1",
        "d.npz": b"PK",
        "e.png": b"\x89PNG",
        "f.md": b"# Results",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / f".{name}.0123456789abcdef.tmp").write_bytes(content)
    (tmp_path / "metrics.jsonl").write_bytes(b'{"row": 1}\n{"row"')  # a kill leaves that
    (tmp_path / "checkpoints" / "a" / "last" / "00000001").mkdir(parents=True)
    found = damage.torn(tmp_path)
    assert set(found) == {*contents, os.path.join("checkpoints", "a", "last", "00000001")}


def test_the_report_counts_and_tells_what_is_bad():
    found = [
        Outcome("kill", ("row", "SIGKILL"), "recflow", "same", []),
        Outcome("kill", ("row", "SIGINT"), "recflow", "same", [], effective=False),
        Outcome("fault", ("run/a.json", "deleted"), "recflow", "differs", [], text="the end"),
        Outcome("limit", ("below", "1,000"), "recflow", "same", ["x.png"]),
    ]
    about = {"commit": {"name": "0" * 40, "dirty": True}, "command": "python -m x", "cpu": "C"}
    about |= {"cpu_count": 2, "packages": {"jax": "1"}, "python": "3"}
    text = fault_report.markdown(found, about)
    for line in (
        *("| kills tried | 2 |", "| kills that came in time | 1 |", "| damaged files tried | 1 |"),
        *("| results that differ without a word | 1 |", "| files torn under their name | 1 |"),
        *("| tracebacks | 0 |", "| row | 1 same | 1 same |", "| run/a.json | 1 differs |"),
        "### differs: fault run/a.json deleted (recflow)",
        "### same: limit below 1,000 (recflow), torn: x.png",
        "with uncommitted changes",
    ):
        assert line in text
    assert "the end" in text


def test_the_plan_covers_every_stage_and_the_whole_table(make_case):
    case = make_case("honest")
    disturbed.shutil.copytree(case.home / "finished", case.home / "unfinished")
    sizes = faults.parser().parse_args(["--kills=12", "--faults=1000", "--limits=2"])
    tasks = faults.plan([case], sizes, random.Random(0))
    assert len(tasks) == 12 + 1000 + 2
    stages = [task.args[1] for task in tasks if task.func is faults.try_kill]
    assert sorted(stages) == sorted([*disturbed.STAGES] * 2)
    seen = {task.args[1:] for task in tasks if task.func is faults.try_fault}
    targets = faults.targets(Place(case.home / "finished", case.home / "cache"))
    assert len(seen) == 2 * len(targets) * len(damage.DAMAGES)


def test_a_campaign_goes_on_from_its_record(tmp_path):
    path = tmp_path / "tries.jsonl"
    assert faults.recorded(path) == faults.recorded(None) == {}
    first = fault_report.Outcome("kill", ("row", "SIGKILL"), "recflow", "same", [])
    second = fault_report.Outcome("fault", ("config.json", "cut"), "recflow", "differs", ["a"])
    faults.record(path, 3, first)
    faults.record(path, 0, second)
    assert faults.recorded(path) == {3: first, 0: second}
