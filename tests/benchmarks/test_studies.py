"""Smoke mode of the studies: run folders, a line for each value and row, a figure."""

import json

import numpy as np
import pytest

from benchmarks import studies
from dnr_jax.experiment import make_plan
from dnr_jax.io import row_files


@pytest.mark.parametrize("what", studies.STUDIES)
def test_a_study_has_a_line_for_each_row_and_a_figure(what, tmp_path, capsys):
    path = tmp_path / "rows.json"
    flags = [what, "--smoke", "--json", str(path), "--workdir", str(tmp_path / "runs")]
    studies.main(studies.parser().parse_args([*flags, "--cache", str(tmp_path / "cache")]))
    rows = json.loads(path.read_text())["rows"]
    assert [row["row"] for row in rows] == ["retriever order", "popularity"]
    assert all(0 < float(row["N@6"]) < 100 for row in rows)
    assert all(-1 <= float(row["rho true"]) <= 1 for row in rows)
    assert [row["delta_x"] for row in rows] == ["n/a", "n/a"]
    assert (tmp_path / "runs" / f"{what}.png").read_bytes().startswith(b"\x89PNG")
    assert f"{what}.png" in capsys.readouterr().out


@pytest.mark.parametrize("what", studies.STUDIES)
def test_every_value_of_a_study_is_a_plan_of_its_own(what):
    arguments = studies.parser().parse_args([what])
    configs = studies.configs_of(studies.STUDIES[what], arguments)
    plans = [plan for config in configs.values() for plan in make_plan(config)]
    assert [row.key for row in plans[0].rows] == list(studies.TABLE)
    knobs = {(plan.data.candidates, plan.data.settings) for plan in plans}
    assert len(knobs) == len(configs) > 3


def test_delta_x_is_zero_for_scores_of_the_observed_law_and_low_for_others(tmp_path):
    random = np.random.default_rng(0)
    labels = (random.random(20_000) < 0.2).astype(np.float32)

    def scores():  # positives score higher
        return random.beta(2 + 3 * labels, 4).astype(np.float32)

    def gap(generated):
        (tmp_path / "analysis").mkdir(exist_ok=True)
        arrays = {"scores": scores(), "labels": labels, "probabilities": labels}
        row_files.write_analysis(tmp_path, "row", arrays | generated)
        return studies.delta_x(tmp_path, "row")

    assert gap({}) == "n/a"
    assert -0.02 < float(gap({"generated_phase1": scores()})) <= 0.001
    turned = random.permutation(scores())  # the same marginal law, whatever the label
    assert float(gap({"generated_phase1": scores(), "generated_phase2": turned})) < -0.1
