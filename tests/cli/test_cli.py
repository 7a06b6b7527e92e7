"""The program `dnr-jax`: its help, its mistakes in one line, and `doctor`."""

import os
import subprocess
import sys

import pytest

from dnr_jax import cli
from dnr_jax.cli.doctor import doctor
from dnr_jax.io import health


def test_help_answers_without_loading_jax():
    words = [[], *([name] for name in cli.program.commands)]
    code = (
        "import sys; from dnr_jax import cli\n"
        f"for words in {words!r}:\n"
        "    assert not cli.program.main([*words, '--help'], 'dnr-jax', standalone_mode=False)\n"
        "assert not {'jax', 'polars', 'numpy'} & set(sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    for name, command in cli.program.commands.items():
        assert f"Usage: dnr-jax {name}" in ran.stdout
        assert f"  {name:<10}  {command.short_help}\n" in ran.stdout  # whole, in one line
    places = [ran.stdout.index(f"\n  {name} ") for name in ("check", "train", "score", "serve")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "error: Missing command. See dnr-jax --help\n"),
        (["docter"], "error: No such command 'docter'. Did you mean 'doctor'? See dnr-jax --help"),
        (["doctor", "--device", "npu"], "'npu' is not one of 'cpu', 'gpu', 'tpu'. See dnr-jax"),
        (["doctor", "--foo"], "error: No such option '--foo'. See dnr-jax doctor --help"),
    ],
)
def test_a_mistake_ends_in_one_line(call, arguments, said):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_doctor_finds_what_this_machine_has(call, tmp_path):
    code, out, _ = call("doctor", "--device", "cpu", "--cache", tmp_path / "new" / "cache")
    assert code == 0
    assert all(line.startswith("ok ") for line in out.splitlines())
    for words in ("Python 3.", "1 cpu device", "can be written", "GiB of disk free"):
        assert words in out
    assert not (tmp_path / "new").exists()


def test_doctor_tells_which_optional_parts_are_there(monkeypatch):
    def requires(name):
        return ["numpy>=2", "click; extra == 'export'", "no-such-package; extra == 'serve'"]

    monkeypatch.setattr(health.metadata, "requires", requires)
    monkeypatch.setattr(health, "EXTRAS", ("export", "serve"))
    found = health.extras()
    assert found.ok
    said = "optional parts: export; not installed: serve (pip install 'dnr_jax[serve]')"
    assert found.words == said


def test_doctor_fails_where_what_was_asked_for_is_missing(call, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    code, out, _ = call("doctor", "--device", "tpu", "--cache", tmp_path)
    assert code == 1
    assert "MISSING  tpu: JAX_PLATFORMS is cpu, which leaves it out: unset it" in out


def test_a_version_out_of_range_is_missing(monkeypatch):
    def requires(name):
        return ["numpy>=99", "no-such-package>=1", "click>=8", "pytest>=99; extra == 'test'"]

    monkeypatch.setattr(health.metadata, "requires", requires)
    _, numpy, absent, click = health.versions()
    assert not numpy.ok
    assert "needs >=99: pip install 'numpy>=99'" in numpy.words
    assert not absent.ok
    assert "pip install 'no-such-package>=1'" in absent.words
    assert click.ok


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    assert not health.writable(tmp_path / "cache").ok


def test_too_little_memory_is_named(monkeypatch):
    monkeypatch.setattr(health, "free_memory", lambda: 2**29)
    found = health.memory()
    assert not found.ok
    assert found.words.startswith("0.5 GiB of memory free: a run takes 1 GiB at least")


def test_every_option_says_what_it_does():
    for command in cli.program.commands.values():
        options = [p for p in command.params if p.param_type_name == "option"]
        assert all(option.help for option in options), command.name
    assert doctor.help
