"""One command, several retrievers: a folder each, one table of all, and the figure of gains."""

import importlib.util
import json

import pytest
from tiny_runs import ITEMS, USERS

from configs import interactions
from dnr_jax import experiment, reports
from dnr_jax.data import DATASETS
from dnr_jax.data.interaction_files import simulator
from dnr_jax.data.interaction_files.settings import InteractionSimulation
from dnr_jax.experiment import make_plan
from dnr_jax.reports import first_stages, results

NAMES = ("random", "popularity")


@pytest.fixture(scope="module")
def table(tiny, shared, run_table):
    """Return the config and the folder of a table of two retrievers."""
    config = tiny(
        retriever={"name": ",".join(NAMES), "cross_fit": 0},
        reranker={"name": "linear"},
        table="retriever,score",
        train={"seeds": 1, "epochs": 1},
    )
    return config, run_table(config, shared / "first_stages")


def test_each_retriever_has_a_folder_and_the_overview_a_column(table):
    _, folder = table
    folders = [folder / name for name in NAMES]
    found = [json.loads((f / "config.json").read_text())["retriever"]["name"] for f in folders]
    assert tuple(found) == NAMES
    text = reports.write_overview(folder, folders)
    assert "by retriever" in text
    assert "| model | random | popularity |" in (folder / "overview.md").read_text()
    assert (folder / "plots" / "first_stages.png").stat().st_size > 1000
    for one in folders:
        test = json.loads((one / "audit.json").read_text())["data"]["retriever"]["test"]
        assert f"{test['auc_user']:.4f}" in text
        assert f"{test['recall@50']:.4f}" in text


def test_training_seconds_outlive_the_cache_that_they_were_measured_for(tiny, table, run_table):
    config, folder = table
    [took, again] = (first_stages.seconds(results.read(folder / name)) for name in NAMES)
    assert took["retriever_seconds"] >= 0 == took["folds_seconds"]
    assert took != again
    other = run_table(config, folder.with_name("first_stages_from_the_cache"))
    assert first_stages.seconds(results.read(other / NAMES[0])) == took
    header = ["retriever", "auc_user", "auc_micro", "recall@50", "training s", "training s, folds"]
    shown = first_stages.table([results.read(other / NAMES[0])])
    assert shown.header == header
    assert shown.body[0][-2:] == [f"{took['retriever_seconds']:,.1f}", "0.0"]
    (other / NAMES[0] / "timings.jsonl").unlink()
    assert first_stages.table([results.read(other / NAMES[0])]).body[0][-2:] == ["n/a", "n/a"]


def test_gains_are_differences_from_the_retrievers_own_order(table):
    _, folder = table
    runs = [results.read(folder / name) for name in NAMES]
    [points] = first_stages.gains(runs).values()
    assert [point.auc for point in points] == sorted(point.auc for point in points)
    expected = {}
    for run in runs:
        own, row = (
            next(line.mean[run.main_metric] for line in run.lines if line.row == key)
            for key in ("retriever", "score")
        )
        expected[first_stages.quality(run)["auc_user"]] = 100 * (row - own)
    for point in points:
        assert point.difference == pytest.approx(expected[point.auc], abs=1e-3)
        assert point.low <= point.difference <= point.high


def test_a_second_start_finds_every_table_done(table, run_table):
    config, folder = table
    before = {p: p.stat().st_mtime_ns for p in folder.glob("*/rows/*")}
    run_table(config, folder)
    assert before
    assert {p: p.stat().st_mtime_ns for p in folder.glob("*/rows/*")} == before


def test_all_retrievers_are_checked_before_the_first_is_trained(tiny):
    with pytest.raises(ValueError, match="there is no retriever 'mf'"):
        make_plan(tiny(retriever={"name": "random,mf"}))
    with pytest.raises(ValueError, match=r"config\.retriever\.name lists a retriever twice"):
        make_plan(tiny(retriever={"name": "random,random"}))
    plans = make_plan(
        tiny(
            retriever={"name": "random,popularity"},
            candidates={"name": "retrieved_pool,exposed_plus_sampled"},
        )
    )
    assert [(plan.retriever, plan.protocol) for plan in plans] == [
        ("random", "retrieved_pool"),
        ("random", "exposed_plus_sampled"),
        ("popularity", "retrieved_pool"),
        ("popularity", "exposed_plus_sampled"),
    ]


@pytest.fixture
def never_read(monkeypatch):
    """Fail where a file of ratings is read."""

    def read(*_):
        raise AssertionError("the ratings were read first")

    for name in ("movielens", "interactions"):
        monkeypatch.setitem(DATASETS, name, DATASETS[name]._replace(read=read))


@pytest.mark.parametrize("name", ["als", "item_knn"])
def test_a_library_that_is_missing_is_told_before_anything_is_read(
    never_read, monkeypatch, tiny, tmp_path, name
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"'{name}' needs .*dnr_jax\[retrievers\]"):
        experiment.run_all(tiny(retriever={"name": f"random,{name}"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_of_scores_is_looked_at_before_anything_is_read(never_read, tiny, tmp_path):
    file = tmp_path / "scores.csv"
    config = tiny(
        retriever={"name": "random,external"}, retrievers={"external": {"path": str(file)}}
    )
    missing = r"external\.path is '.*scores\.csv': it must be"
    for run in (experiment.estimate, lambda config: experiment.run_all(config, tmp_path / "run")):
        file.unlink(missing_ok=True)
        with pytest.raises(FileNotFoundError, match=missing):
            run(config)
        file.write_text("user,item\n1,2\n")
        with pytest.raises(ValueError, match="no column 'score'"):
            run(config)
    assert not (tmp_path / "run").exists()


def test_another_amazon_year_is_told_before_anything_is_read(never_read, tmp_path):
    folder = tmp_path / "files"
    simulated = InteractionSimulation(layout="amazon_2018_ratings", users=2, catalogue=60)
    simulator.simulate(folder, simulated)
    data = {"name": "interactions", "path": str(folder), "layout": "amazon_2014_ratings"}
    config = interactions.get_config("smoke").to_dict()
    config |= {"data": config["data"] | data, "cache": str(tmp_path / "cache")}
    with pytest.raises(ValueError, match=r"is amazon_2018_ratings .* Set data\.layout="):
        experiment.run_all(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_scores_that_are_missing_are_told_before_the_first_table_is_trained(tiny, tmp_path):
    file = tmp_path / "scores.csv"
    pairs = [f"{u + 1},{i + 1},{i}" for u in range(USERS) for i in range(1, ITEMS)]
    file.write_text("\n".join(["user,item,score", *pairs]) + "\n")
    config = tiny(
        retriever={"name": "random,external", "cross_fit": 0},
        retrievers={"external": {"path": str(file)}},
    )
    with pytest.raises(ValueError, match=r"no score for .* the first of them item 1 for user"):
        experiment.run_all(config, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*/*"))
