"""A run folder is this program's own; nothing of the user's is written to."""

import os

import pytest

from dnr_jax.io import environment, lock, run_folder


@pytest.fixture(autouse=True)
def known_environment(monkeypatch):
    monkeypatch.setattr(
        environment, "describe", lambda: {"command": "python", "packages": {"jax": "1"}}
    )


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder):
    before = content(folder)
    with pytest.raises(ValueError, match=r"workdir|delete it") as error:
        run_folder.open_run(folder, {"seed": 0})
    assert content(folder) == before
    return str(error.value)


@pytest.mark.parametrize(
    "names",
    [
        ("config.json",),
        ("config.json", "results.json", "metrics.jsonl"),
        ("thesis.tex",),
        (".lock",),
        (".lock", "config.json"),
        ("environment.json", "config.json"),
    ],
)
def test_a_folder_of_someone_else_is_refused_untouched(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text('{"hidden_size": 768}')
    text = refused(tmp_path)
    assert str(tmp_path) in text
    assert "was not made by this program" in text
    assert names[-1] in text
    assert "new or an empty --workdir" in text


def test_many_strange_files_are_not_all_named(tmp_path):
    for number in range(9):
        (tmp_path / f"photo{number}.jpg").write_bytes(b"")
    assert refused(tmp_path).count("photo") == 5


def test_an_empty_folder_and_one_left_by_a_kill_are_taken(tmp_path):
    os.close(lock.take(tmp_path))
    marked = (tmp_path / ".lock").read_bytes()
    (tmp_path / ".lock").write_bytes(b"")  # killed before the mark was written
    os.close(lock.take(tmp_path))
    assert len((tmp_path / ".lock").read_bytes()) == len(marked) > 0


@pytest.mark.parametrize("lost", [".lock", "environment.json"])
def test_a_run_folder_is_known_by_its_lock_or_its_environment(tmp_path, lost):
    run_folder.open_run(tmp_path, {"seed": 0}).close()
    (tmp_path / lost).unlink()
    run_folder.open_run(tmp_path, {"seed": 0}).close()
    assert (tmp_path / lost).exists()


def test_the_lock_is_opened_without_following_links(tmp_path):
    own = tmp_path / "own"
    own.write_text("precious")
    folder = tmp_path / "run"
    run_folder.open_run(folder, {"seed": 0}).close()
    for link in (os.symlink, os.link):
        (folder / ".lock").unlink()
        link(own, folder / ".lock")
        assert "is not a regular file: delete it" in refused(folder)
        assert own.read_text() == "precious"
    (folder / ".lock").unlink()
    (folder / ".lock").mkdir()
    assert "is not a regular file: delete it" in refused(folder)
    (folder / ".lock").rmdir()
    os.mkfifo(folder / ".lock")
    assert "is not a regular file: delete it" in refused(folder)


@pytest.mark.parametrize(
    "name", [".config.json.tmp", ".results.json.tmp", "config.json", "results.json", "audit.json"]
)
def test_links_in_a_run_folder_lead_nowhere(tmp_path, name):
    own = tmp_path / "own"
    folder = tmp_path / "run"
    run_folder.open_run(folder, {"seed": 0}).close()
    own.write_text("precious")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(own)
    with run_folder.open_run(folder, {"seed": 0}) as run:
        run.write_json(run_folder.AUDIT, {})
        run.write_json(run_folder.RESULTS, {})
    assert own.read_text() == "precious"


def test_whoever_looks_while_the_lock_is_taken_again_finds_the_mark(tmp_path, monkeypatch):
    os.close(lock.take(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    real, seen = os.ftruncate, []

    def look(descriptor, size):
        seen.append((tmp_path / ".lock").read_bytes())
        real(descriptor, size)

    monkeypatch.setattr(lock.os, "ftruncate", look)
    os.close(lock.take(tmp_path))
    assert seen[0].startswith(b"dnr_jax run folder")
    assert (
        tmp_path / ".lock"
    ).read_text() == f"dnr_jax run folder, used by process {os.getpid()}\n"
