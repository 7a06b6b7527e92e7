"""What a folder lacks, and what reading it takes, before it is read."""

from datetime import date, timedelta

import pytest
from recflow_cases import DAYS, default_days, write

from configs import recflow
from dnr_jax import experiment
from dnr_jax.data.recflow import files
from dnr_jax.data.recflow.estimate import estimate
from dnr_jax.data.recflow.settings import RecFlowSettings

PUBLISHED = [(date(2024, 1, 13) + timedelta(days=n)).isoformat() for n in range(37)]


def folder_of(path, names):
    for name in ("all_stage", "seq_effective_50_dict"):
        (path / name).mkdir(parents=True)
    for name in names:
        (path / "all_stage" / f"{name}.feather").write_text("x")
    return path


@pytest.mark.parametrize(
    ("lost", "period", "middle", "edges"),
    [
        (["2024-01-13"], "all", [], ["2024-01-13"]),
        (["2024-01-13", "2024-02-01"], "first", ["2024-02-01"], ["2024-01-13"]),
        (["2024-02-18"], "all", [], ["2024-02-18"]),
        (["2024-02-18"], "first", [], []),
        ([], "all", [], []),
        (PUBLISHED[:30], "all", [], []),  # a week is a choice, not a loss
    ],
)
def test_a_published_day_that_is_not_there_is_named(lost, period, middle, edges, tmp_path):
    folder = folder_of(tmp_path / "d", sorted(set(PUBLISHED) - set(lost)))
    _, found = files.find_days(folder, period=period, days=0)
    said = files.absent(found)
    assert found["missing_days"] == middle
    assert len(said) == bool(middle) + bool(edges)
    if edges:
        assert said[-1].startswith(f"published days that the folder lacks: {edges}")
    assert not files.find_days(folder, period=period, days=3)[1]["published_days_absent"]


def test_the_estimate_counts_rows_without_reading_them(tmp_path, monkeypatch):
    days = default_days()
    folder = write(tmp_path / "d", days)
    read = []
    monkeypatch.setattr(files, "collect", lambda frame, path: read.append(path) or frame.collect())
    said = estimate(folder, RecFlowSettings(user_share=0.5))
    rows = [len(days[day]) for day in DAYS]
    assert said[0].startswith(
        f"3 days, {DAYS[0]} to {DAYS[2]}; {sum(rows)} rows, at most {max(rows)}"
    )
    assert said[0].endswith("1 user in 2")
    assert "GiB of memory" in said[1]
    assert len(read) == 3


def test_a_dry_run_writes_nothing(tmp_path):
    folder = write(tmp_path / "d", default_days())
    config = recflow.get_config("smoke").to_dict()
    config["data"]["path"], config["cache"] = str(folder), str(tmp_path / "cache")
    before = sorted(tmp_path.rglob("*"))
    said = experiment.estimate(config)
    assert said[0].startswith("recflow: ")
    assert "minutes" in said[2]
    assert sorted(tmp_path.rglob("*")) == before
    config["data"]["path"] = ""
    assert experiment.estimate(config) == [
        "recflow: config.data.path is empty, so its files would be simulated"
    ]
