"""A run on damaged files ends with the same bytes, or says in one line what is wrong.

The campaign `benchmarks.faults` does the same from outside, with kills and whole processes.
"""

import random
import shutil
from typing import NamedTuple

import jax
import numpy as np
import pytest
from linear_reranker import LINEAR
from tiny_runs import run_linear, tiny_config, write_ratings

from benchmarks import damage
from benchmarks.disturbed import Place
from benchmarks.faults import targets
from dnr_jax import experiment
from dnr_jax.io import compiled
from dnr_jax.rerankers import RERANKERS

ROW = "dnr_b"
# Root may read everything: that damage is for the campaign.
DAMAGES = {name: call for name, call in damage.DAMAGES.items() if name != "unreadable"}
# What a finished run does not even look at, or writes anew whatever is there.
IDLE = ("run/checkpoints/", "run/results.", "run/per_request.", "run/plots/")


class Run(NamedTuple):
    """A run to damage.

    Attributes:
      config: of its table, `retriever` and `dnr_b`, two seeds and both phases.
      place: its finished folder and its cache.
      reference: content by name of what it left.
    """

    config: dict
    place: Place
    reference: dict


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("faults")
    write_ratings(root / "ratings")
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    config = tiny_config(root, reranker={"name": "linear"}, table=f"retriever,{ROW}")
    folder = run_linear(config, root / "finished")
    yield Run(config, Place(folder, root / "cache"), damage.results(folder))
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(autouse=True)
def own_tables(monkeypatch):
    monkeypatch.setitem(RERANKERS, "linear", LINEAR)
    monkeypatch.setattr(compiled, "keep", lambda folder: None)  # the test session keeps its own


def unfinished(folder):
    """Take from a finished run its last row's results and last epoch, as a kill would have."""
    for path in folder.glob(f"rows/{ROW}.*"):
        path.unlink()
    for name in ("results.json", "per_request.parquet", f"analysis/{ROW}.npz"):
        (folder / name).unlink()
    shutil.rmtree(folder / "models" / ROW)
    last = sorted((folder / "checkpoints" / ROW / "last").iterdir())[-1]
    shutil.rmtree(last)


def start(run, place):
    """Run to the end; return the words of a refusal, None if there was none."""
    try:
        experiment.run_all({**run.config, "cache": str(place.cache)}, place.workdir)
    except (ValueError, OSError) as error:
        return str(error)
    return None


def attempt(run, place, target, name, caplog):
    """Damage a file, start the run again, and say what it led to; a traceback fails the test."""
    draw = random.Random(f"{target} {name}")
    path = draw.choice(targets(place)[target])
    DAMAGES[name](path, draw)
    caplog.clear()
    refusal = start(run, place)
    if refusal is not None:
        # One line, but for the knobs of a config that differ, which are a list.
        assert "\n" not in refusal or "another config" in refusal
        assert any(str(part) in refusal for part in place), refusal
        return "refused"
    different = damage.differing(place.workdir, run.reference)
    assert not different or path.name in caplog.text, (path, name, different)
    assert damage.torn(place.workdir, but=path) == []
    return "told" if different else "same"


def copy(run, folder, state):
    place = Place(folder / "run", folder / "cache")
    shutil.copytree(run.place.workdir, place.workdir)
    shutil.copytree(run.place.cache, place.cache)
    if state == "unfinished":
        unfinished(place.workdir)
    return place


def test_an_unfinished_run_goes_on_to_the_same_bytes(run, tmp_path):
    place = copy(run, tmp_path, "unfinished")
    assert damage.differing(place.workdir, run.reference)
    experiment.run_all({**run.config, "cache": str(place.cache)}, place.workdir)
    assert damage.differing(place.workdir, run.reference) == []


EVERY = tuple(DAMAGES)
SOME = ("deleted", "truncated", "bit flipped", "a folder")
GROUPS = {
    **dict.fromkeys(("run/rows/*.json", "run/audit.json", "run/metrics.jsonl"), EVERY),
    **dict.fromkeys(("run/rows/*.parquet", "run/timings.jsonl", "cache/prepared/*.bin"), SOME),
    **dict.fromkeys(("run/.lock", "run/config.json", "run/environment.json"), SOME),
    **dict.fromkeys(("run/results.json", "run/per_request.parquet", "run/catalogue.npz"), SOME),
    **dict.fromkeys(("run/analysis/*.npz", "run/models/*.json", "run/models/*.npz"), SOME),
    **dict.fromkeys(("run/encoders/*.json", "run/encoders/*.npy"), SOME),
    **dict.fromkeys(("run/retriever/*.json", "run/retriever/*.bin"), SOME),
    **dict.fromkeys(("run/checkpoints/seal.json", "run/checkpoints/arrays"), SOME),
    **dict.fromkeys(("cache/prepared/manifest.json", "cache/prepared/*.json"), SOME),
    "cache/prepared/*.npy": SOME,
}


def test_every_kind_of_file_is_in_the_table(run):
    compiled = {"cache/compiled/*"}  # of its own only where the tests share no programs
    assert set(targets(run.place)) - compiled == set(GROUPS)


@pytest.mark.parametrize("target", GROUPS)
def test_a_finished_run_survives_damage(run, tmp_path, target, caplog):
    for name in GROUPS[target]:
        place = copy(run, tmp_path / name.replace(" ", "-"), "finished")
        verdict = attempt(run, place, target, name, caplog)
        if target.startswith(IDLE) and name != "a folder":
            assert verdict == "same", name


@pytest.mark.parametrize(
    ("target", "name", "expected"),
    [
        ("run/metrics.jsonl", "emptied", {"told"}),
        ("run/metrics.jsonl", "digit changed", {"told", "same"}),  # a later epoch's is dropped
        ("run/checkpoints/arrays", "bit flipped", {"refused"}),  # its only version
        ("run/rows/*.json", "digit changed", {"same"}),
    ],
)
def test_an_unfinished_run_survives_damage(run, tmp_path, target, name, expected, caplog):
    place = copy(run, tmp_path, "unfinished")
    assert attempt(run, place, target, name, caplog) in expected


def test_a_damaged_row_is_scored_again_from_its_checkpoint(run, tmp_path, caplog, monkeypatch):
    place = copy(run, tmp_path, "finished")
    path = place.workdir / "rows" / f"{ROW}.json"
    path.write_text(path.read_text().replace('"best_epoch": 1', '"best_epoch": 2'))
    monkeypatch.setattr(experiment.training, "fit", None)  # training would fail
    assert start(run, place) is None
    assert damage.differing(place.workdir, run.reference) == []
    assert f"{path} is not what was written: the row is scored again" in caplog.text


@pytest.mark.parametrize("content", ["{", '{"data": 1}'])
def test_a_damaged_audit_is_refused_and_made_anew_once_deleted(run, tmp_path, content):
    place = copy(run, tmp_path, "finished")
    path = place.workdir / "audit.json"
    path.write_text(content)
    assert "delete it if the data are still what they were" in start(run, place)
    path.unlink()
    assert start(run, place) is None
    assert damage.differing(place.workdir, run.reference) == []


def test_a_folder_of_the_user_s_own_is_left_alone_whatever_it_holds(run, tmp_path):
    config = {**run.config, "candidates": {**run.config["candidates"]}}
    config["candidates"]["name"] = "exposed_plus_sampled,retrieved_pool"
    for name in ("config.json", "overview.md"):
        own = tmp_path / name.replace(".", "-")
        own.mkdir()
        (own / name).write_text("my own")
        for wanted in (run.config, config):
            with pytest.raises(ValueError, match="was not made by this program"):
                experiment.run_all(wanted, own)
        assert [path.name for path in own.iterdir()] == [name]
        assert (own / name).read_text() == "my own"


def test_a_test_split_without_positives_is_refused_before_training(run, tmp_path, monkeypatch):
    prepare = experiment.datasets.prepare

    def without(plan):
        prepared = prepare(plan)
        split = prepared.splits["test"]
        batch = split.batch.replace(labels=np.zeros_like(split.batch.labels))
        splits = dict(prepared.splits) | {"test": split._replace(batch=batch)}
        return prepared._replace(splits=splits)

    monkeypatch.setattr(experiment.datasets, "prepare", without)
    with pytest.raises(ValueError, match="requests of the test split has a positive"):
        experiment.run_all(run.config, tmp_path / "run")
    assert not (tmp_path / "run" / "rows").exists()
