"""What every run folder must hold: others build on these files and names."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from dnr_jax.rerankers import RERANKERS

MODELS = {
    "random": "random",
    "popularity": "popularity",
    "retriever": "retriever",
    "reversed": "reversed",
    "plain": "linear",
    "score": "linear+score",
    "dnr_b": "linear+dnr-b",
    "dnr_g": "linear+dnr-g",
    "dnr_r": "linear+dnr-r",
    "dnr_b_conditional": "linear+dnr-b-conditional",
}
TRIVIAL = ("random", "popularity", "retriever", "reversed")
ACCURACY = ("h@6", "n@6", "m@6", "f1@6", "auc")
BOUNDED = (*ACCURACY, "hit@6", "auc_micro", "coverage@6", "long_tail@6", "ece", "brier")


@pytest.fixture(scope="module")
def results(finished):
    return json.loads((finished / "results.json").read_text())


def test_the_run_folder_is_complete(finished):
    names = [
        *("config.json", "environment.json", "metrics.jsonl", "results.json", "results.md"),
        *("results.tex", "results.csv", "per_request.parquet", "audit.json", "timings.jsonl"),
    ]
    for name in names:
        assert (finished / name).stat().st_size > 0, name
    plots = list((finished / "plots").glob("*.png"))
    assert len(plots) >= 4
    assert all(plot.read_bytes().startswith(b"\x89PNG") for plot in plots)
    for row in set(MODELS) - set(TRIVIAL):
        assert list((finished / "checkpoints" / row / "last").iterdir())


def test_every_row_of_the_table_stands_there_once_for_each_seed_and_split(results):
    seen = [(row["row"], row["split"], row["seed"]) for row in results["rows"]]
    expected = [
        (name, split, seed)
        for name in MODELS
        for seed in ((0,) if name in TRIVIAL else (0, 1))
        for split in ("valid", "test")
    ]
    assert seen == expected
    assert {row["row"]: row["model"] for row in results["rows"]} == MODELS
    assert all(row["trivial"] == (row["row"] in TRIVIAL) for row in results["rows"])
    assert set(TRIVIAL) < set(RERANKERS)


def test_rows_carry_the_promised_keys_and_sane_metrics(results):
    for row in results["rows"]:
        assert row["protocol"] == "exposed_plus_sampled"
        assert 0 <= row["excluded"] < row["requests"] == 40
        assert set(ACCURACY) <= set(row["metrics"])
        for name, value in row["metrics"].items():
            if value is None or np.isnan(value):
                assert row["trivial"] or name.endswith("_truth"), name
            elif name in BOUNDED:
                assert 0 <= value <= 1, (row["row"], name)


def test_reversed_order_mirrors_the_retriever(results):
    auc = {r["row"]: r["metrics"]["auc"] for r in results["rows"] if r["split"] == "test"}
    assert auc["retriever"] + auc["reversed"] == pytest.approx(1, abs=1e-5)


def test_per_request_values_average_to_the_results(finished, results):
    table = pq.read_table(finished / "per_request.parquet")
    model, seed = (table[name].to_numpy(zero_copy_only=False) for name in ("model", "seed"))
    rows = [row for row in results["rows"] if row["split"] == "test"]
    assert len(table) == sum(row["requests"] for row in rows)
    for row in rows:
        own = (model == row["model"]) & (seed == row["seed"])
        assert len(np.unique(table["request_id"].to_numpy()[own])) == row["requests"]
        for name in ACCURACY:
            values = table[name].to_numpy()[own]
            assert np.isnan(values).sum() == row["excluded"]
            assert np.nanmean(values) == pytest.approx(row["metrics"][name], abs=1e-6)


def test_two_seeds_of_a_learned_row_differ(results):
    for name in set(MODELS) - set(TRIVIAL):
        own = [r["metrics"]["auc"] for r in results["rows"] if r["row"] == name]
        assert len(set(own)) > 2, name


def test_metrics_are_recorded_by_row_seed_and_epoch(finished):
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    seen = [(r["row"], r["seed"], r["epoch"]) for r in records]
    learned = [name for name in MODELS if name not in TRIVIAL]
    assert seen == [(name, seed, n) for name in learned for n in (1, 2) for seed in (0, 1)]
    for record in records:
        dnr = record["row"].startswith("dnr")
        assert ("adversarial" in record) == (dnr and record["epoch"] == 2)
        assert ("regulariser" in record) == (dnr and record["epoch"] == 2)
        assert (record.get("denoise", 0.0) > 0) == dnr
        assert record["direct"] > 0


def test_a_row_needs_a_dozen_programs_and_tells_when_its_first_step_began(finished):
    """What they are stands in benchmarks/README.md; one more is a leaf-wise loop somewhere."""
    records = [json.loads(line) for line in (finished / "timings.jsonl").read_text().splitlines()]
    programs = {r["row"]: r["programs"] for r in records if "programs" in r}
    first = {r["row"]: r["first_step_seconds"] for r in records if "first_step_seconds" in r}
    assert set(programs) == set(MODELS)
    assert set(first) == set(MODELS) - set(TRIVIAL)
    assert min(first.values()) > 0
    for row, count in programs.items():
        # The first row also compiles the metrics, which all rows share.
        assert count <= (6 if row in TRIVIAL else 12), row
    assert sum(programs.values()) > len(programs)


def test_the_audit_and_the_report_of_the_data_are_kept(finished, results):
    audit = json.loads((finished / "audit.json").read_text())
    assert audit["audit"]["protocol"] == "exposed_plus_sampled"
    assert {f["level"] for f in audit["audit"]["findings"]} <= {"OK", "WARN", "LEAK"}
    n6 = {r["row"]: r["metrics"]["n@6"] for r in results["rows"] if r["split"] == "test"}
    scorers = audit["audit"]["scorers"]["test"]
    assert scorers["reversed"]["n@6"] == pytest.approx(n6["reversed"], abs=1e-6)
    assert "ratings" in audit["data"]


def test_the_tables_name_every_row(finished, results):
    for name in ("results.md", "results.tex", "results.csv"):
        text = (finished / name).read_text()
        for row in results["rows"]:
            assert row["label"].replace("_", r"\_") in text or row["label"] in text
