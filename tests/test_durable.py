"""Files are complete or absent, and nothing outside is written through what lies at a name."""

import errno
import os
import resource
import stat
import subprocess
import sys

import pytest

from dnr_jax import durable


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    durable.write_bytes(path, b"old")

    def fail():
        with durable.replacing(path) as file:
            file.write(b"new, half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_the_file_appears_whole(tmp_path):
    path = tmp_path / "deep" / "a"
    with durable.replacing(path) as file:
        file.write(b"x" * 10)
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"x" * 10
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


def test_links_are_replaced_and_never_followed(tmp_path):
    (tmp_path / "own").write_bytes(b"precious")
    for name in ("a", ".a.tmp"):
        (tmp_path / name).symlink_to(tmp_path / "own")
    durable.write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "own").read_bytes() == b"precious"
    assert not (tmp_path / "a").is_symlink()
    (tmp_path / "b").symlink_to(tmp_path / "own")
    with pytest.raises(OSError, match="symbolic links"):
        durable.append(tmp_path / "b", b"more")
    assert (tmp_path / "own").read_bytes() == b"precious"


def test_two_writers_of_one_name_do_not_meet(tmp_path):
    path = tmp_path / "a"
    with durable.replacing(path) as one, durable.replacing(path) as other:
        assert one.name != other.name
        one.write(b"1" * 1000)
        other.write(b"2" * 1000)
    assert path.read_bytes() in (b"1" * 1000, b"2" * 1000)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_in_the_way_is_named(tmp_path):
    (tmp_path / "a" / "inner").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match="a folder where a file should be") as error:
        durable.write_bytes(tmp_path / "a", b"")
    assert error.value.filename == str(tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


LIMITED = """
import resource, sys
from pathlib import Path
from dnr_jax import durable
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
path = Path(sys.argv[1])
for write in (durable.write_bytes, durable.append):
    try:
        write(path, b"x" * 5000)
    except OSError as error:
        print(error.errno, error.filename)
"""


def test_a_file_size_limit_names_the_file_and_keeps_the_old_one(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"{errno.EFBIG} {path}"] * 2
    assert path.read_bytes() == b"old"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_leftovers_of_killed_writes_are_swept_and_nothing_else(tmp_path):
    left = tmp_path / ".results.json.0123456789abcdef.tmp"
    left.write_bytes(b"half")
    (tmp_path / ".mine.tmp").write_bytes(b"")
    (tmp_path / "a").write_bytes(b"")
    durable.sweep(tmp_path)
    durable.sweep(tmp_path / "absent")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".mine.tmp", "a"]


def test_remove_takes_whatever_is_there(tmp_path):
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "own").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "own")
    (tmp_path / "file").write_bytes(b"")
    for name in ("folder", "link", "file", "absent"):
        durable.remove(tmp_path / name)
    assert os.listdir(tmp_path) == ["own"]
