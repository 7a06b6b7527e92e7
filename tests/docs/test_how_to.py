"""The how-tos: each diff applies to this tree, and the tests that it names pass with it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("reranker", "noise", "loss", "retriever", "dataset")


def diff(name):
    """Return the one diff of a page."""
    found = re.findall(r"```diff\n(.*?)```", (ROOT / f"docs/how_to/{name}.md").read_text(), re.S)
    assert len(found) == 1
    return found[0]


def selection(name):
    """Return path and keyword of the tests that a page tells its reader to run."""
    command = rf"git apply {name}\.diff && python -m pytest (\S+) -k (\w+)\n"
    found = re.findall(command, (ROOT / f"docs/how_to/{name}.md").read_text())
    assert len(found) == 1
    return found[0]


def run(*command, cwd, **options):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    """A copy of this tree with all diffs applied."""
    copy = tmp_path_factory.mktemp("tree")
    listed = run("git", "ls-files", "-co", "--exclude-standard", "-z", cwd=ROOT, check=True).stdout
    for file in filter(None, listed.split("\0")):
        if (ROOT / file).exists():
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, copy / file)
    for name in NAMES:
        applied = run("git", "apply", "-", cwd=copy, input=diff(name))
        assert applied.returncode == 0, f"{name}: {applied.stderr}"
    return copy


@pytest.fixture(scope="module")
def outcomes(patched):
    """The tests that all pages name, run in one process: what went wrong, or None, by name."""
    paths, words = zip(*map(selection, NAMES), strict=True)
    command = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", "--junit-xml=out"]
    done = run(*command, *sorted(set(paths)), "-k", " or ".join(words), cwd=patched)
    assert done.returncode in (0, 1), done.stdout + done.stderr  # 1 = a test failed
    cases = ElementTree.parse(patched / "out").getroot().iter("testcase")
    return {(case.get("classname"), case.get("name")): wrong(case) for case in cases}


def wrong(case):
    found = [case.find(kind) for kind in ("failure", "error")]
    return next((element.text for element in found if element is not None), None)


@pytest.mark.parametrize("name", NAMES)
def test_the_tests_of_a_page_pass(name, outcomes):
    path, word = selection(name)
    room = path.removesuffix(".py").replace("/", ".")
    of_room = {name: text for (home, name), text in outcomes.items() if home.startswith(room)}
    mine = {name: text for name, text in of_room.items() if word in name}
    assert mine, f"no test of {path} has {word!r} in its name"
    assert not list(filter(None, mine.values()))


def test_what_the_diffs_add_is_as_clean_as_the_rest(patched):
    for command in (("ruff", "check"), ("ruff", "format", "--check")):
        checked = run(sys.executable, "-m", *command, "--no-cache", ".", cwd=patched)
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_diff_is_small(name):
    files = re.findall(r"^diff --git", diff(name), re.M)
    added = [line for line in diff(name).split("\n") if re.match(r"\+(?!\+\+)", line)]
    removed = [line for line in diff(name).split("\n") if re.match(r"-(?!--)", line)]
    assert len(files) == 3  # a file or a function, a table line, a test line
    assert len(added) <= 80
    assert len(removed) <= 2
