"""The folder of compiled programs: whose wish counts, and what if it cannot be used."""

import logging
import os
import resource
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax.io import compiled

# A process of its own: JAX settles on a folder once.
CHILD = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
jnp.ones(2) + 1  # a program before the folder is known, as in a notebook
from dnr_jax.io import compiled
compiled.keep(Path(sys.argv[1]))
with compiled.counted() as count:
    jax.jit(lambda x: jnp.sin(x) * 3)(2.0)
print(count.programs, count.from_cache)
"""


def run(folder, code=CHILD, **variables):
    own = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    command = [sys.executable, "-W", "error", "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=own | variables)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


def test_the_second_process_reads_what_the_first_compiled_and_survives_a_torn_file(tmp_path):
    folder = tmp_path / "deep" / "compiled"
    assert run(folder) == ["1", "0"]
    assert run(folder) == ["1", "1"]
    for path in folder.glob("*-cache"):
        path.write_bytes(path.read_bytes()[:40])
    assert run(folder) == ["1", "0"]


@pytest.fixture
def settings():
    names = ("jax_compilation_cache_dir", *compiled._SETTINGS)
    before = {name: jax.config.values[name] for name in names}
    yield before
    for name, value in before.items():
        jax.config.update(name, value)


def swap(paths):
    a, b = (path.read_bytes() for path in paths)
    paths[0].write_bytes(b)
    paths[1].write_bytes(a)


def tear(paths):
    paths[0].write_bytes(paths[0].read_bytes()[:100])
    paths[1].write_bytes(b"")


def flip(paths):
    for path in paths:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def bury(paths):
    paths[0].unlink()
    paths[0].mkdir()
    paths[1].write_bytes(bytes(paths[1].stat().st_size))


@pytest.fixture
def kept(tmp_path, settings, monkeypatch):
    """Keep this process's programs in a folder of the test."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    compiled.keep(tmp_path)
    yield tmp_path
    compiled._JAX.reset_cache()


def make_two():
    """Make two programs of one signature ready; return how many came from the cache."""
    with compiled.counted() as count:
        found = [float(jax.jit(lambda x, f=f: f(x) * 3)(2.0)) for f in (jnp.sin, jnp.cos)]
    assert count.programs == 2
    np.testing.assert_allclose(found, [3 * np.sin(2), 3 * np.cos(2)], rtol=1e-6)
    return count.from_cache


@pytest.mark.parametrize("damage", [swap, tear, flip, bury])
def test_a_damaged_entry_is_compiled_again_once_without_a_word(kept, damage, caplog):
    assert make_two() == 0
    assert make_two() == 2
    damage(sorted(kept.glob("*-cache")))
    assert [make_two(), make_two()] == [0, 2]
    assert not caplog.records


def test_a_full_disk_is_told_once_and_leaves_no_half_entry(kept, caplog):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        assert make_two() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caplog.text.count("compiled programs are not kept") == 1
    assert not list(kept.glob("*-cache"))


def test_the_user_s_own_folder_wins(tmp_path):
    own = tmp_path / "own"
    assert run(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(own)) == ["1", "0"]
    assert any(own.iterdir())
    assert not (tmp_path / "ours").exists()


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path, settings, caplog, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING, "dnr_jax"):
        compiled.keep(tmp_path / "file" / "compiled")
    assert "compiled programs are not kept" in caplog.text
    assert jax.config.values["jax_compilation_cache_dir"] == settings["jax_compilation_cache_dir"]


def test_programs_are_counted_until_the_block_ends():
    @jax.jit
    def double(x):
        return 2 * x

    with compiled.counted() as count:
        double(jnp.ones(3))
        before = count.programs
        double(jnp.ones(3))
        assert count.programs == before
        double(jnp.ones(4))
    assert count.programs > before >= 1
    assert count.compiled == count.programs - count.from_cache
    assert count.seconds > 0
    total = count.programs
    double(jnp.ones(5))
    assert count.programs == total
