import csv
import io
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from dnr_jax import reports
from dnr_jax.io import run_folder
from dnr_jax.reports import budget, records, rendering, results, tables

BEST = "DNR-B, conditional L_x & 50% more"


def body(table):
    return {row[0]: dict(zip(table.header[1:], row[1:], strict=True)) for row in table.body}


def edit_rows(folder, change):
    path = folder / "results.json"
    content = json.loads(path.read_text())
    for row in content["rows"]:
        change(row)
    path.write_text(json.dumps(content))


def test_values_against_hand_numbers(make_run):
    run = results.read(make_run())
    rows = body(tables.accuracy(run))
    # 40, 44, 48: mean 44, sample standard deviation 4
    assert rows["PRM without scores"]["N@6"] == "44.00 ± 4.00"
    assert rows["PRM without scores"]["H@6"] == "22.00 ± 2.00"
    assert rows["PRM without scores"]["AUC"] == "61.00 ± 1.00"
    assert rows["PRM without scores"]["rho true"] == "0.340 ± 0.040"
    assert rows["random"]["N@6"] == "20.00"
    assert rows["random"]["rho true"] == "n/a"
    # 70, 71, 75: deviations -2, -1, 3, so sqrt(14 / 2)
    assert rows[BEST]["N@6"] == f"72.00 ± {np.sqrt(7):.2f}"
    assert re.fullmatch(r"\+22\.00 \[.*\]\*", rows[BEST]["vs best other"])
    assert re.fullmatch(r"-22\.00 \[.*\] ", rows["reversed order"]["vs best other"])
    assert list(rows) == ["random", "reversed order", "PRM without scores", BEST]


def test_metrics_nobody_has_are_left_out(make_run):
    folder = make_run()
    assert tables.beyond_accuracy(results.read(folder)).header == ["model", "ECE %"]
    edit_rows(folder, lambda row: row["metrics"].update({"n@6_end_to_end": 0.125}))
    rows = body(tables.beyond_accuracy(results.read(folder)))
    assert rows["random"] == {"N@6 end to end": "12.50", "ECE %": "12.34"}


def test_per_request_values_are_aligned_by_request(make_run):
    folder = make_run()
    _, values = records.by_request(folder, "n@6", {"random": [0], "prm": [0, 1, 2]})
    assert values["prm"].shape == (3, 50)  # 10 of 60 are excluded
    steps = np.array([[0.20], [0.24], [0.28]])
    np.testing.assert_allclose(values["prm"] - values["random"], np.tile(steps, 50), atol=1e-6)
    with pytest.raises(ValueError, match="no values of model 'pier', seed 0"):
        records.by_request(folder, "n@6", {"pier": [0]})
    with pytest.raises(ValueError, match="no values of model 'prm', seed 3"):
        records.by_request(folder, "n@6", {"prm": [3]})
    with pytest.raises(ValueError, match="no column 'auc'"):
        records.by_request(folder, "auc", {"prm": [0]})


def test_intervals_cover_the_seeds(make_run):
    """All requests agree, so that nothing but the seeds 70, 71, 75 is uncertain."""
    run = results.read(make_run())
    found = run.comparisons["prm+dnr-b"]
    half = stats.t.ppf(1 - 0.025 / 3, 2) * np.std([70, 71, 75], ddof=1) / np.sqrt(3)
    assert found.best_other == "reversed"
    assert 100 * found.low == pytest.approx(22 - half, abs=1e-3)
    assert 100 * found.high == pytest.approx(22 + half, abs=1e-3)


def test_a_row_with_one_seed_gets_no_star(make_run):
    folder = make_run()
    content = json.loads((folder / "results.json").read_text())
    content["rows"] = [r for r in content["rows"] if r["seed"] == 0]
    (folder / "results.json").write_text(json.dumps(content))
    run = results.read(folder)
    assert body(tables.accuracy(run))[BEST]["vs best other"].endswith("]?")
    said = " ".join(tables.notes(run))
    assert f"is unknown, and in no interval. One seed: PRM without scores; {BEST}." in said


def test_edges_of_the_budget_are_named(make_run, make_config):
    folder = make_run()
    config = make_config(prm=[0.3, 1.0, 3.0], dnr_b=[0.3, 1.0, 3.0])
    for row in ("prm", "dnr_b"):
        config["rows"][row]["train"] |= {"epochs": 60, "lambda_e": 6}
    config["rows"]["dnr_b"]["generator"] = {"name": "learned_direct"}
    (folder / "config.json").write_text(json.dumps(config))
    best = {"prm": (1.0, [20, 31, 25]), "dnr_b": (3.0, [6, 60, 40])}

    def choose(row):
        if row["row"] in best:
            factor, epochs = best[row["row"]]
            row.update(learning_rate_factor=factor, best_epoch=epochs[row["seed"]])

    edit_rows(folder, choose)
    run = results.read(folder)
    assert budget.table(run).body[0] == [
        *("PRM without scores", "20, 31, 25", "60", "1", "0.3, 1, 3", "no")
    ]
    (_, (*_, hits)) = budget.table(run).body
    assert hits == (
        "best epoch is the last allowed; highest rate tried; "
        "best epoch of a seed before the learned generator"
    )
    assert f"perhaps better beyond it: {BEST} (best epoch is the last" in tables.to_text(
        run
    ).replace("\n  ", " ")


def test_a_single_rate_is_said_to_be_no_finding(make_run, make_config):
    folder = make_run()
    config = make_config(prm=[3.0], dnr_b=[3.0])
    for row in ("prm", "dnr_b"):
        config["rows"][row]["train"] |= {"epochs": 60, "lambda_e": 0}
    (folder / "config.json").write_text(json.dumps(config))
    edit_rows(
        folder, lambda row: row.update(best_epoch=5) if row["row"] in ("prm", "dnr_b") else None
    )
    run = results.read(folder)
    assert [hits for *_, hits in budget.table(run).body] == ["no (one rate)"] * 2
    assert "Every learned row's best epoch lies inside" in " ".join(tables.notes(run))


def test_notes_say_what_was_learned_and_where_from(make_run):
    said = " ".join(tables.notes(results.read(make_run())))
    assert "60 requests, of which 10 have no positive" in said
    assert "Best trivial scorer: reversed order, N@6 = 50.00." in said
    assert "do NOT clearly beat it" in said
    assert said.split("do NOT clearly beat it")[1].split(".")[0].endswith("PRM without scores")
    assert "leak" not in said
    assert "Command: python -m dnr_jax.main --config configs/recflow.py" in said
    assert "commit 0123456789ab with uncommitted changes" in said
    assert "Some CPU, 2 cores, 8.0 GiB" in said
    assert "t-test" in said
    assert "Holm" in said
    assert "seeds 0, 1, 2" in said


def test_a_resumption_elsewhere_is_said(make_run):
    folder = make_run()
    path = folder / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"resumed": [{"cpu": "Other"}]}))
    assert "what differed from the first: cpu." in " ".join(tables.notes(results.read(folder)))


def test_leaking_protocol_is_called_so(make_run):
    said = " ".join(tables.notes(results.read(make_run("exposed_plus_retrieved"))))
    assert "scores leak the answer" in said
    assert "reversed order alone gives N@6 = 50.00" in said


def test_all_learned_rows_good_or_no_trivial_rows(make_run):
    folder = make_run()
    edit_rows(folder, lambda row: row.update(trivial=row["model"] == "random"))
    assert "Every learned row beats it" in " ".join(tables.notes(results.read(folder)))
    edit_rows(folder, lambda row: row.update(trivial=False))
    assert "no trivial scorers" in " ".join(tables.notes(results.read(folder)))


def test_rows_without_a_significant_difference_get_no_star(make_run):
    run = results.read(make_run())
    weak = {m: c._replace(p_holm=0.05, low=-0.015, high=0.5) for m, c in run.comparisons.items()}
    rows = body(tables.accuracy(run._replace(comparisons=weak)))
    assert rows[BEST]["vs best other"] == "+22.00 [-1.50, +50.00]="
    assert rows["random"]["vs best other"] == "-52.00 [-1.50, +50.00]="


def test_a_single_row_needs_no_comparison(make_run):
    folder = make_run()
    path = folder / "results.json"
    path.write_text(json.dumps({"rows": json.loads(path.read_text())["rows"][:1]}))
    assert body(tables.accuracy(results.read(folder)))["random"]["vs best other"] == "n/a"


def test_null_metrics_do_not_count(make_run):
    folder = make_run()
    edit_rows(folder, lambda r: r["metrics"].update({"auc": None if r["seed"] else 0.5}))
    rows = body(tables.accuracy(results.read(folder)))
    assert rows["PRM without scores"]["AUC"] == "50.00"


def test_other_splits_are_not_shown(make_run):
    folder = make_run()
    edit_rows(folder, lambda r: r.update(split="valid" if r["model"] == "random" else "test"))
    assert [line.model for line in results.read(folder).lines] == ["reversed", "prm", "prm+dnr-b"]
    edit_rows(folder, lambda r: r.update(split="valid"))
    with pytest.raises(ValueError, match="no row of split 'test'"):
        results.read(folder)


@pytest.mark.parametrize("name", ["results.json", "per_request.parquet", "environment.json"])
def test_unfinished_run(make_run, name):
    folder = make_run()
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match="has not finished"):
        results.read(folder)


def test_rows_that_do_not_fit_together(make_run):
    folder = make_run()
    edit_rows(folder, lambda row: row.update(requests=row["seed"]))
    with pytest.raises(ValueError, match="must agree in 'requests'"):
        results.read(folder)
    edit_rows(folder, lambda row: row.pop("label"))
    with pytest.raises(ValueError, match=r"lacks \['label'\]"):
        results.read(folder)


def test_terminal_columns_line_up(make_run):
    lines = tables.to_text(results.read(make_run())).splitlines()
    widths = {len(line) for line in lines[1:9]}
    assert len(widths) == 1
    assert max(len(line) for line in lines[9:]) <= len(lines[1])


def test_latex_escapes():
    assert rendering.latex_escape("L_x & 50% ±1 #1 {a} $ ~^\\") == (
        r"L\_x \& 50\% $\pm$1 \#1 \{a\} \$ \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert rendering.latex_escape("--config p < 1") == "{-}{-}config p $<$ 1"


def test_latex_table(make_run):
    text = tables.to_latex(results.read(make_run()))
    assert r"DNR-B, conditional L\_x \& 50\% more & 36.00 $\pm$ 1.32 & 72.00 $\pm$ 2.65" in text
    assert re.search(r"\$-\$22\.00 \[\$-\$[\d.]+, \$-\$[\d.]+\] \\\\", text)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in rows} == {7, 1, 3}
    assert (
        text.count(r"\toprule") == text.count(r"\bottomrule") == text.count(r"\begin{table}") == 3
    )


def test_markdown_table(make_run):
    text = tables.to_markdown(results.read(make_run()))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0].startswith("| model | H@6 | N@6 | M@6 | F1@6 | AUC | rho true | vs best other |")
    assert {line.count("|") for line in rows[:6]} == {9}
    assert re.search(r"\| \+22\.00 \[[+\d., ]+\]\\\* \|", text)


def test_cost_sums_what_each_row_took(make_run):
    folder = make_run()
    edit_rows(folder, lambda r: r.update({} if r["trivial"] else {"parameters": 12345}))
    with run_folder.open_run(folder, json.loads((folder / "config.json").read_text())) as run:
        run.append_timings(*({"row": "prm", "epoch": n, "seconds": 20.4} for n in (1, 2)))
        run.append_timings({"row": "prm", "scoring_seconds": 3.2})
    rows = body(tables.cost(results.read(folder)))
    assert list(rows["PRM without scores"].values()) == ["12,345", "40.8", "3.2"]
    assert list(rows["random"].values()) == ["n/a"] * 3


def test_dnr_is_set_against_direct_training_of_its_own_reranker(make_run):
    folder = make_run()
    assert results.read(folder).against_direct == {}  # no row of PRM with scores
    edit_rows(folder, lambda row: row.update(model=row["model"].replace("prm", "prm+score", 1)))
    edit_rows(folder, lambda row: row.update(model=row["model"].replace("+score+dnr", "+dnr")))
    path = folder / run_folder.PER_REQUEST
    table = pq.read_table(path)
    names = [{"prm": "prm+score"}.get(name, name) for name in table["model"].to_pylist()]
    place = table.column_names.index("model")
    pq.write_table(table.set_column(place, "model", pa.array(names)), path)
    run = results.read(folder)
    (row,) = tables.against_direct(run).body
    assert row[:2] == [BEST, "PRM without scores"]
    # 72 - 44; all requests differ by the same, so that Welch's t-test over seeds is all there is.
    low, high = stats.ttest_ind([70, 71, 75], [40, 44, 48], equal_var=False).confidence_interval()
    assert row[2] == f"+28.00 [+{low:.2f}, +{high:.2f}]"
    assert f"| +28.00 [+{low:.2f}, +{high:.2f}] |" in tables.to_markdown(run)


def test_trials_are_told(make_run, make_config):
    folder = make_run()
    assert "No row was tuned: the learned rows use the learning rates of the config." in " ".join(
        tables.to_text(results.read(folder)).split()
    )

    def told(**factors):
        (folder / "config.json").write_text(json.dumps(make_config(**factors)))
        return " ".join(tables.to_text(results.read(folder)).split())

    both = told(prm=[0.3, 1.0], dnr_b=[0.3, 1.0])
    assert "the same 2 trials, its learning rates times 0.3, 1," in both
    assert "different numbers of trials" in told(prm=[0.3, 1.0], dnr_b=[1.0])
    assert (
        "No row was tuned: the learned rows use the learning rates of the config times 3."
        in told(prm=[3.0], dnr_b=[3.0])
    )


def test_overview_sets_protocols_side_by_side(make_run):
    folders = [make_run(name) for name in ("retrieved_pool", "logged")]
    edit_rows(folders[1], lambda r: r["metrics"].update({"n@6": 0.5}))
    text = reports.write_overview(folders[0].parent, folders)
    rows = body(tables.overview([results.read(f) for f in folders]))
    assert rows["PRM without scores"] == {
        "retrieved_pool": "44.00 ± 4.00",
        "logged": "50.00 ± 0.00",
    }
    assert rows["random"]["retrieved_pool"] == "20.00"
    written = (folders[0].parent / "overview.md").read_text()
    assert "[logged](logged/results.md)" in written
    assert "44.00 ± 4.00" in text


def test_csv_is_unrounded(make_run):
    run = results.read(make_run())
    rows = list(csv.DictReader(io.StringIO(tables.to_csv(run))))
    found = {row["model"]: row for row in rows}
    assert float(found["prm"]["n@6 mean"]) == pytest.approx(0.44, abs=1e-15)
    assert float(found["prm"]["n@6 std"]) == pytest.approx(0.04, abs=1e-15)
    assert found["random"]["n@6 std"] == ""
    assert found["prm"]["n@6 best_other"] == "prm+dnr-b"
    assert found["prm+dnr-b"]["seeds"] == "0 1 2"
    assert found["random"]["diversity@6 mean"] == ""


def test_write_makes_every_file_twice_the_same(make_run, monkeypatch):
    monkeypatch.setattr(reports.plots, "DPI", 30)
    folder = make_run()
    text = reports.write(folder)
    names = ("results.md", "results.tex", "results.csv")
    first = [(folder / n).read_bytes() for n in names]
    assert reports.write(str(folder)) == text
    assert first == [(folder / n).read_bytes() for n in names]
    for plot in ("training", "score_noise", "generated_scores", "reliability"):
        assert f"(plots/{plot}.png)" in first[0].decode()
        assert (folder / "plots" / f"{plot}.png").exists()
