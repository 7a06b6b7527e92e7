"""A copied run folder: whole, verified, and one that a run goes on from."""

import pytest

from dnr_jax import experiment, sealed
from dnr_jax.experiment import copies
from dnr_jax.io import run_folder
from dnr_jax.json_files import DamagedError

CONFIG = {"seed": 0}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "run"
    with run_folder.open_run(folder, CONFIG) as run:
        run.append_metrics({"row": "score", "epoch": 1})
        (run.path / "checkpoints" / "score").mkdir(parents=True)
        (run.path / "checkpoints" / "score" / "big").write_bytes(b"x" * (2 * copies._BLOCK + 3))
    return folder


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_copy_has_every_byte_and_a_run_goes_on_in_it(source, tmp_path):
    target = experiment.copy_run(source, tmp_path / "drive" / "runs" / "first")
    assert contents(target) == contents(source)
    with run_folder.open_run(target, CONFIG) as run:
        run.append_metrics({"row": "score", "epoch": 2})
    assert [path.name for path in target.parent.iterdir()] == ["first"]


def test_a_later_copy_takes_the_place_of_an_earlier_one(source, tmp_path):
    target = experiment.copy_run(source, tmp_path / "copy")
    with run_folder.open_run(source, CONFIG) as run:
        run.append_metrics({"row": "score", "epoch": 2})
    (tmp_path / ".copy.new").mkdir()  # of a copy that was killed
    (tmp_path / ".copy.new" / "torn").touch()
    assert contents(experiment.copy_run(source, target)) == contents(source)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "copy"}


def test_what_the_drive_has_not_kept_is_no_copy(source, tmp_path, monkeypatch):
    target = experiment.copy_run(source, tmp_path / "copy")
    before, digest = contents(target), sealed.digest

    def lossy(path):
        if path.name == "big":
            path.write_bytes(path.read_bytes()[:-1])
        return digest(path)

    monkeypatch.setattr(sealed, "digest", lossy)
    with pytest.raises(DamagedError, match="big is not what was written: the drive has not kept"):
        experiment.copy_run(source, target)
    assert contents(target) == before
    assert {path.name for path in tmp_path.iterdir()} == {"run", "copy"}


def test_a_run_that_goes_on_is_not_copied_half_way(source, tmp_path):
    with run_folder.open_run(source, CONFIG), pytest.raises(ValueError, match="is in use by"):
        experiment.copy_run(source, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_what_is_no_run_folder_is_neither_copied_nor_replaced(source, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a run folder: it has no config\.json"):
        experiment.copy_run(tmp_path / "nothing", tmp_path / "copy")
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="mine is not a copy of a run folder"):
        experiment.copy_run(source, tmp_path / "mine")
