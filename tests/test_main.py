"""The command line: its mistakes end in one line, and kill -9 changes no number."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from absl import logging as absl_logging
from absl.testing import flagsaver

import dnr_jax
from benchmarks import quick_compile
from dnr_jax import main
from dnr_jax.training.epoch import NonFiniteError

ROOT = Path(dnr_jax.__file__).parents[1]
SMOKE = "configs/recflow.py:smoke"
# Of the whole table only what is needed: each program more costs the suite seconds.
SHORT = ("--config.table=retriever,dnr_b", "--config.train.epochs=4", "--config.train.lambda_e=2")
PHASE_TWO = 3  # its first epoch
FINAL = ("results.json", "metrics.jsonl", "per_request.parquet", "audit.json", "config.json")


def command(*arguments):
    return [sys.executable, "-m", "dnr_jax.main", *map(str, arguments)]


def start(*arguments, **options):
    environment = os.environ | {"XLA_FLAGS": quick_compile.FLAGS, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(
        command(*arguments), cwd=ROOT, env=environment, **pipes, start_new_session=True, **options
    )


def finish(process):
    text, _ = process.communicate(timeout=300)
    return process.returncode, text


def test_help_explains_and_exits_0():
    code, text = finish(start("--help"))
    assert code == 0
    for word in ("--config recflow:smoke", "--workdir", "goes on where it was"):
        assert word in text


@pytest.fixture
def ends_in(monkeypatch):
    """Call the program in this process; return the text that it ends in, which Python prints."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(main.console, "log_plainly", lambda level: None)
    verbosity = absl_logging.get_verbosity()

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main._main(main._parse(["main", *map(str, arguments)]))
        assert ended.value.code.startswith("error: ")
        return ended.value.code

    with flagsaver.flagsaver():
        yield call
    absl_logging.set_verbosity(verbosity)


def test_a_mistake_on_the_command_line_ends_in_one_line():
    code, text = finish(start("--config", SMOKE, "--config.train.epochs=many"))
    assert code == 1
    assert "Traceback" not in text
    assert text.startswith("error: flag --config.train.epochs=many")
    assert len(text.splitlines()) <= 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config", SMOKE, "junk"], "error: unexpected arguments ['junk']"),
        (["--config", SMOKE, "--wrokdir=x"], "Did you mean: workdir"),
        ([], "error: no --config was given"),
        (["--config"], "error: no --config was given"),
        (["--config", "configs/recflow.py:smoky"], "no preset 'smoky': choose one of none, smoke"),
        (["--config", "configs/nothing.py"], "there is no config file 'configs/nothing.py'"),
        (["--config", "recfow"], "there is no packaged config 'recfow'; did you mean 'recflow'?"),
        (
            ["--config", SMOKE, "--config.trian.epochs=3"],
            "error: config: there is no knob 'trian'; did you mean 'train'? Known: cache, ",
        ),
        (
            ["--config", SMOKE, "--config.train.epoch=3"],
            "error: config.train: there is no knob 'epoch'; did you mean 'epochs'?",
        ),
        (["--config", SMOKE, "--config.rows.dnr_b.set.noise.nme=beta"], "did you mean 'name'?"),
        (["--config", SMOKE, "--config.data.simulate.user=9"], "did you mean 'users'?"),
        (["--config", SMOKE, "--config.rerankers.dcdr.bean=9"], "did you mean 'beam'?"),
        (
            ["--config", SMOKE, "--config.rerankers.prm.beam=8"],
            "error: config.rerankers.prm: there is no knob 'beam'; did you mean "
            "config.rerankers.dcdr.beam? Known: causal, ",
        ),
        (["--config", SMOKE, "--processes=2"], "--processes=2 needs --coordinator=HOST:PORT"),
        (["--config", SMOKE, "--processes=0"], "--process=0 of --processes=0: number them from"),
        (["--config", SMOKE, "--config.seed.of=8"], "error: config.seed is 0: it has no knob 'of'"),
    ],
)
def test_what_is_not_there_is_named(arguments, expected, ends_in):
    text = ends_in(*arguments)
    assert expected in text
    assert len(text.splitlines()) == 2


def test_a_config_of_another_program_ends_in_one_line(tmp_path, ends_in):
    (tmp_path / "other.py").write_text("def get_config():\n    return {'lr': 0.1, 'data': {}}\n")
    text = ends_in("--config", tmp_path / "other.py")
    assert text.startswith("error: config.data.name is missing: it must be one of interactions, ")
    assert len(text.splitlines()) <= 2


def test_a_wrong_value_ends_in_one_line_before_any_work(tmp_path, ends_in, capsys):
    workdir = tmp_path / "run"
    text = ends_in("--config", SMOKE, "--config.rerankers.dcdr.beam=0", "--workdir", workdir)
    assert text == "error: config.rerankers.dcdr.beam is 0: it must be 1 or more"
    assert capsys.readouterr() == ("", "")
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("a knob"), "error: a knob"),
        (NonFiniteError("the term 'direct' is not finite"), "error: the term 'direct' is not"),
        (
            PermissionError(13, "Permission denied", "/cache"),
            "error: /cache: Permission denied",
        ),
        (OSError(28, "No space left on device"), "error: .*No space left on device"),
        (MemoryError(), "error: not enough memory"),
    ],
)
def test_what_stops_a_run_is_one_line(monkeypatch, tmp_path, error, said):
    def fail(config, workdir):
        raise error

    monkeypatch.setattr(main, "_run", fail)
    with pytest.raises(SystemExit, match=said) as stopped:
        main._run_or_say_why({}, tmp_path)
    assert "\n" not in str(stopped.value.code)


def test_a_missing_path_ends_in_one_line(tmp_path, ends_in):
    path = tmp_path / "no-such-folder"
    text = ends_in("--config", SMOKE, f"--config.data.path={path}", "--workdir", tmp_path / "run")
    assert text.startswith(f"error: config.data.path is '{path}'")
    assert len(text.splitlines()) == 1


def epochs_done(workdir):
    file = workdir / "metrics.jsonl"
    return len(re.findall("\n", file.read_text())) if file.exists() else 0


def checkpoints(workdir):
    return sorted(workdir.glob("checkpoints/*/last/[0-9]*/seal.json"))


def signal_after(process, number, reached, delay):
    """Send the run a signal `delay` seconds after `reached()`, unless it has ended before."""
    while process.poll() is None and not reached():
        time.sleep(0.01)
    try:
        process.wait(timeout=delay)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, number)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Arguments of the short run; its cache keeps data and compiled programs for the next one."""
    return ["--config", SMOKE, *SHORT, f"--config.cache={tmp_path_factory.mktemp('cache')}"]


@pytest.fixture(scope="module")
def uninterrupted(options, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "uninterrupted"
    code, text = finish(start(*options, "--tensorboard", "--workdir", workdir))
    assert code == 0, text
    return workdir, text


def test_a_run_prints_its_table(uninterrupted):
    workdir, text = uninterrupted
    for part in ("audit of protocol logged", "row 2 of 2: DNR-B", "N@6", "retriever order"):
        assert part in text
    assert json.loads((workdir / "results.json").read_text())["rows"]
    assert len(list((workdir / "plots").glob("*.png"))) >= 4
    assert len(list((workdir / "tensorboard").rglob("events.*"))) == 1


def test_ctrl_c_and_kill_9_at_random_moments_change_no_byte(options, uninterrupted, tmp_path):
    seed = time.time_ns()
    draw = random.Random(seed)
    workdir = tmp_path / "stopped"
    arguments = [*options, "--workdir", workdir]

    process = start(*arguments)
    signal_after(process, signal.SIGINT, lambda: checkpoints(workdir), draw.uniform(0, 0.1))
    code, text = finish(process)
    assert code == 130, text
    assert text.splitlines()[-1] == (
        f"stopped: {workdir} holds every finished epoch; start the same command again to go on"
    )
    assert "Traceback" not in text

    first, delay = epochs_done(workdir), draw.uniform(0, 0.5)
    goal = max(PHASE_TWO, first + 1)
    process = start(*arguments)
    signal_after(process, signal.SIGKILL, lambda: epochs_done(workdir) >= goal, delay)
    ended, _ = finish(process)
    story = f"seed {seed}: stopped at epoch {first}; kill -9 {delay:.3f} s after {goal}: {ended}"
    code, text = finish(start(*arguments))
    assert code == 0, text
    for name in FINAL:
        assert (workdir / name).read_bytes() == (uninterrupted[0] / name).read_bytes(), (
            name,
            story,
        )
