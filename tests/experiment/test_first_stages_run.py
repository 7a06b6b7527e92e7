"""One command, several retrievers: a folder each, one table of all, and the figure of gains."""

import json

import pytest

from dnr_jax import reports
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
