"""The simulator's files: schema, invariants, quirks, atomic writing."""

import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.feather
import pytest

from dnr_jax.data.recflow import files, pickles
from dnr_jax.data.recflow.settings import RecFlowSimulation
from dnr_jax.data.recflow.simulator import simulate, writer
from dnr_jax.data.recflow.simulator.writer import Quirks

SIZE = {"users": 40, "videos": 700, "days": 3, "requests_per_user_day": 2.0}
PLAIN = Quirks()
DAYS = ["2024-02-16", "2024-02-17", "2024-02-18"]


def make(folder, quirks=PLAIN, **change):
    settings = RecFlowSimulation(**SIZE | change)
    simulate(folder, settings, quirks=quirks, progress=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recflow") / "sim"
    make(path, seed=1)
    return path


@pytest.fixture(scope="module")
def days(folder):
    return [pl.read_ipc(folder / "all_stage" / f"{day}.feather") for day in DAYS]


@pytest.fixture(scope="module")
def rows(days):
    return pl.concat(days)


def _load(path: Path):
    with open(path, "rb") as file:
        return pickle.load(file)


def test_every_file_of_the_schema_is_there(folder):
    others = ["retrieval_test", "coarse_rank_test", "rank_test", "realshow_video_info"]
    expected = {Path(f"others/{name}.feather") for name in others} | {Path("others/id_cnt.pkl")}
    for day in DAYS:
        for kind in ("all_stage", "realshow", "others/realshow_video_info_daily", "truth"):
            expected.add(Path(kind) / f"{day}.feather")
        for kind in ("seq_effective_50_dict", "request_id_dict", "ubm_seq_request_id_dict"):
            expected.add(Path(kind) / f"{day}.pkl")
    assert {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()} == expected


def test_columns_are_the_readme_order_and_all_integers(rows, folder):
    assert tuple(rows.columns) == writer.ROW_COLUMNS
    assert len(rows.columns) == 30
    assert set(rows.dtypes) == {pl.Int64}
    # Readable by what pandas.read_feather calls.
    table = pyarrow.feather.read_table(folder / "realshow" / f"{DAYS[0]}.feather")
    assert tuple(table.column_names) == writer.ROW_COLUMNS
    test = pl.read_ipc(folder / "others" / "rank_test.feather")
    assert tuple(test.columns) == writer.TEST_COLUMNS


def test_days_are_cut_at_midnight_in_beijing(days):
    for day, frame in zip(DAYS, days, strict=True):
        times = pl.from_epoch("request_timestamp", time_unit="ms").dt.offset_by("8h").dt.date()
        assert frame.select(times.cast(pl.String).unique()).to_series().to_list() == [day]
        assert (frame["upload_timestamp"] < frame["request_timestamp"] // 1000).all()


def test_requests_are_numbered_in_order_of_time(rows):
    heads = rows.unique("request_id", maintain_order=True)
    np.testing.assert_array_equal(heads["request_id"], np.arange(len(heads)))
    assert heads["request_timestamp"].is_sorted()
    assert not rows.select("request_id", "video_id").is_duplicated().any()


def test_stages_have_the_sizes_of_the_figure(rows):
    per = rows.group_by("request_id").agg(pl.col(files.FLAGS).sum())
    for flag in ("rerank_pos", "rank_pos", "rerank_neg", "rank_neg"):
        assert (per[flag] == 10).all()
    for flag in ("coarse_neg", "prerank_neg"):
        assert (per[flag] == 40).all()
    assert per["realshow"].is_between(1, 6).all()
    assert abs(per["realshow"].mean() - 4.05) < 0.3
    assert rows.group_by("request_id").len()["len"].max() <= 126


def test_nobody_is_shown_a_video_twice(rows):
    shown = rows.filter(pl.col("realshow") == 1).select("user_id", "video_id")
    assert not shown.is_duplicated().any()


def test_retrieval_leaves_out_what_was_shown_before(rows):
    """No recorded row of any stage holds a video that its user was shown in an earlier request."""
    shown = rows.filter(pl.col("realshow") == 1).select("user_id", "video_id", when="request_id")
    again = rows.join(shown, on=["user_id", "video_id"]).filter(
        pl.col("when") < pl.col("request_id")
    )
    assert len(again) == 0
    assert shown.group_by("user_id").len()["len"].max() > 20  # enough to meet again by chance


def test_what_was_not_shown_may_come_back(rows):
    pairs = rows.filter(pl.col("rank_pos") == 1).select("user_id", "video_id")
    assert pairs.is_duplicated().any()


def test_ranks_agree_with_flags(rows):
    assert ((rows["rank_pos"] == 1) == rows["rank_index"].is_between(1, 10)).all()
    assert ((rows["rerank_pos"] == 1) == rows["rerank_index"].is_between(1, 10)).all()
    entered = rows.filter(pl.any_horizontal(pl.col("rerank_pos", "rerank_neg", "realshow") == 1))
    assert entered["rank_index"].is_between(1, 120).all()
    assert entered["rerank_index"].is_between(1, 120).all()
    early = rows.filter(pl.any_horizontal(pl.col("coarse_neg", "prerank_neg") == 1))
    assert (early["rank_index"] == 0).all()
    shown = rows.filter(pl.col("realshow") == 1)
    assert (shown["rerank_pos"] == 1).mean() == 1


def test_feedback_is_consistent(rows):
    assert (rows["long_view"] <= rows["effective_view"]).all()
    assert (rows["effective_view"] <= rows["realshow"]).all()
    shown = rows.filter(pl.col("realshow") == 1)
    watched = 10 * shown["playing_time"] >= 3 * shown["duration"]
    assert (watched == (shown["effective_view"] == 1)).all()
    assert (rows.filter(pl.col("realshow") == 0)["playing_time"] == 0).all()
    assert abs(shown["effective_view"].mean() - 0.37) < 0.06


def test_ids_stay_below_their_counts(rows, folder):
    counts = _load(folder / "others" / "id_cnt.pkl")
    assert len(counts) == 11
    for name, count in counts.items():
        assert 0 <= rows[name].min() <= rows[name].max() < count


def test_pickles_agree_with_the_rows(days, folder):
    for day, frame in zip(DAYS, days, strict=True):
        stages = _load(folder / "request_id_dict" / f"{day}.pkl")
        past = _load(folder / "seq_effective_50_dict" / f"{day}.pkl")
        assert set(stages) == set(past) == set(frame["request_id"])
        for flag in files.FLAGS:
            pairs = frame.filter(pl.col(flag) == 1).select("request_id", "video_id").rows()
            kept = {(i, v) for i, s in stages.items() if flag in s for v in s[flag][:, 0].tolist()}
            assert kept == set(pairs)
        viewed = _load(folder / "ubm_seq_request_id_dict" / f"{day}.pkl")
        assert set(viewed) == {i for p in past.values() for i in p[p[:, 7] > 0, 9].tolist()}


def test_histories_are_the_latest_views_before_the_request(rows, folder):
    past = {}
    for day in DAYS:
        past |= _load(folder / "seq_effective_50_dict" / f"{day}.pkl")
    heads = rows.unique("request_id").select("request_id", "user_id", "request_timestamp")
    views = rows.filter(pl.col("effective_view") == 1)
    for request_id, user, time in heads.rows():
        events = past[request_id]
        assert events.shape == (50, 10)
        assert events.dtype == np.int64
        real = events[:, 7] > 0
        assert (np.diff(real.astype(int)) >= 0).all()
        assert (np.diff(events[real, 7]) >= 0).all()
        assert (events[~real, 3] == 2).all()
        assert (np.delete(events[~real], 3, axis=1) == 0).all()
        own = views.filter((pl.col("user_id") == user) & (pl.col("request_timestamp") < time))
        assert real.sum() == min(50, len(own))
        assert set(events[real, 0].tolist()) <= set(own["video_id"])


def test_truth_explains_views(rows, folder):
    truth = pl.concat([pl.read_ipc(folder / "truth" / f"{day}.feather") for day in DAYS])
    assert truth["relevance"].is_between(0, 1).all()
    shown = rows.join(truth, on=["request_id", "video_id"]).filter(pl.col("realshow") == 1)
    viewed = shown.group_by("effective_view").agg(pl.col("relevance").mean()).sort("effective_view")
    low, high = viewed["relevance"]
    assert high > low + 0.1


@pytest.mark.parametrize(("noise", "low", "high"), [(0.0, 1.0, 1.0), (8.0, 0.0, 0.6)])
def test_noise_is_what_hides_the_truth_from_the_ranking(tmp_path, noise, low, high):
    make(tmp_path / "sim", noise=noise)
    rows = pl.concat([pl.read_ipc(tmp_path / "sim" / "all_stage" / f"{d}.feather") for d in DAYS])
    truth = pl.concat([pl.read_ipc(tmp_path / "sim" / "truth" / f"{d}.feather") for d in DAYS])
    ranked = rows.filter(pl.col("rank_index") > 0).join(truth, on=["request_id", "video_id"])
    by_request = ranked.group_by("request_id").agg(
        -pl.corr("rank_index", "relevance", method="spearman")
    )
    assert low - 1e-6 <= by_request.to_series(1).mean() <= high + 1e-6


def test_same_seed_same_files(folder, tmp_path):
    make(tmp_path / "again", seed=1)
    for path in sorted(folder.rglob("*.*")):
        if path.is_file():
            again = tmp_path / "again" / path.relative_to(folder)
            assert path.read_bytes() == again.read_bytes(), path


def test_wide_counts_record_all_rank_losers(tmp_path):
    make(tmp_path / "wide", users=3, rank_losers=380)
    frame = pl.read_ipc(tmp_path / "wide" / "all_stage" / f"{DAYS[0]}.feather")
    assert (frame.group_by("request_id").agg(pl.col("rank_neg").sum())["rank_neg"] == 380).all()


def test_quirks_are_written(tmp_path):
    quirks = Quirks(float("nan"), 0, True, True, True, True, True)
    make(tmp_path / "odd", quirks)
    frame = pl.read_ipc(tmp_path / "odd" / "all_stage" / f"{DAYS[0]}.feather")
    assert " category_level_two" in frame.columns
    assert frame["rank_index"].is_nan().any()
    assert frame.filter(pl.col("rank_pos") == 1)["rank_index"].min() == 0
    seventh = frame.filter(pl.col("request_id") % 7 == 0)
    assert seventh["coarse_neg"].sum() == 0 < frame["coarse_neg"].sum()
    stages = pickles.load_pickle(tmp_path / "odd" / "request_id_dict" / f"{DAYS[0]}.pkl")
    assert type(stages).__name__ == "dict"
    assert "coarse_neg" not in stages[0]
    raw = (tmp_path / "odd" / "request_id_dict" / f"{DAYS[0]}.pkl").read_bytes()
    assert b"defaultdict_tuple" in raw
    for name in ("recall_test", "prerank_test", "retrieval_test", "coarse_rank_test"):
        assert (tmp_path / "odd" / "others" / f"{name}.feather").exists()
    assert (tmp_path / "odd" / "all_stage" / "example.feather").stat().st_size == 0


def test_an_interrupted_simulation_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_tests", fail)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "half")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"videos": 599}, "600 or more"),
        ({"days": 2}, "3 or more and at most 37"),
        ({"requests_per_user_day": 0}, "above 0"),
        ({"view_rate": 1.0}, "above 0 and below 1"),
        ({"rank_losers": 381}, "at most 380"),
        ({"requests_per_user_day": 1e-6}, "day without requests"),
        ({"videos": 610}, "may be shown .* fewer requests a user"),
    ],
)
def test_bad_arguments_name_what_is_needed(tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        make(tmp_path / "bad", **change)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_touched(tmp_path):
    with pytest.raises(FileExistsError, match="delete it"):
        make(tmp_path)
