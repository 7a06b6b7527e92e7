"""Smoke mode of the studies: run folders, a line for each value and row, a figure."""

import json

import pytest

from benchmarks import studies
from dnr_jax.experiment import make_plan


@pytest.mark.parametrize("what", studies.STUDIES)
def test_a_study_has_a_line_for_each_row_and_a_figure(what, tmp_path, capsys):
    path = tmp_path / "rows.json"
    flags = [what, "--smoke", "--json", str(path), "--workdir", str(tmp_path / "runs")]
    studies.main(studies.parser().parse_args([*flags, "--cache", str(tmp_path / "cache")]))
    rows = json.loads(path.read_text())["rows"]
    assert [row["row"] for row in rows] == ["retriever order", "popularity"]
    assert all(0 < float(row["N@6"]) < 100 for row in rows)
    assert all(-1 <= float(row["rho true"]) <= 1 for row in rows)
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
