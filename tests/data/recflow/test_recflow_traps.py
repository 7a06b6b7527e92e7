"""Rows as the real ones may be: odd units, duplicates, sentinels, leaks."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from recflow_cases import (
    DAYS,
    NOON_MS,
    build,
    column,
    default_days,
    event,
    history,
    request_rows,
    row,
    write,
)

from dnr_jax.data import store
from dnr_jax.data.recflow.features import HISTORY, Transforms, clock, item_vectors


def test_plain_files_give_closed_values(tmp_path):
    data = build(write(tmp_path / "d"), tmp_path).splits["train"]
    batch = data.batch
    assert batch.request.where.sum(axis=1).tolist() == [3, 3, 3]
    np.testing.assert_allclose(
        np.sort(batch.scores[0])[-3:], 1 - np.log([40, 3, 1]) / np.log(8001), rtol=1e-6
    )
    first, second = batch.slate[0, :2]
    assert batch.labels[0, first] == 1  # rerank_index 1 was viewed
    assert batch.labels[0, second] == 0
    assert (batch.slate[0, 2:] == -1).all()
    # 2024-02-16 was a Friday; 12:30 in Beijing.
    np.testing.assert_array_equal(batch.request.context[0], [2 + 4, 2 + 12, 2 + 30])
    assert column(batch.request, "age_days")[0, first] == 2 + 2  # log2(1 + 3)
    assert np.isnan(data.truth).all()


def test_milliseconds_and_seconds_are_told_apart(tmp_path):
    days = default_days()
    for rows in days.values():
        for r in rows:
            r["request_timestamp"] //= 1000
            r["upload_timestamp"] *= 1000
    swapped = build(write(tmp_path / "swapped", days), tmp_path).splits["train"].batch.request
    plain = build(write(tmp_path / "plain"), tmp_path).splits["train"].batch.request
    np.testing.assert_array_equal(swapped.context, plain.context)
    np.testing.assert_array_equal(swapped.candidates, plain.candidates)


def test_clock_is_beijing_time_whatever_the_machine(monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    late = int(datetime(2024, 2, 17, 16, 4, tzinfo=UTC).timestamp())  # 02-18 00:04 in Beijing
    told = {name: int(v) - 2 for name, v in clock(np.array(late), Transforms()).items()}
    assert told == {"weekday": 6, "hour": 0, "minute": 4}


def test_rows_of_another_day_are_reported(tmp_path):
    days = default_days()
    days[DAYS[0]] += [
        r | {"request_timestamp": NOON_MS - 13 * 3_600_000} for r in request_rows(99, 0)
    ]
    report = build(write(tmp_path / "d", days), tmp_path).report
    assert report["by_day"][DAYS[0]]["rows_of_another_day"] == 3
    assert any("outside their file's day" in text for text in report["warnings"])


def test_duplicates_are_merged(tmp_path):
    days = default_days()
    twin = row(0, 12, 0, realshow=1, rank_index=7, rerank_index=9, effective_view=1, long_view=1)
    days[DAYS[0]] += [twin, row(0, 10, 0, rank_pos=1, rank_index=2)]
    prepared = build(write(tmp_path / "d", days), tmp_path)
    batch = prepared.splits["train"].batch
    assert prepared.report["by_day"][DAYS[0]]["duplicates_merged"] == 2
    assert batch.request.where[0].sum() == 3
    assert batch.exposed[0].sum() == 3
    assert batch.labels[0].sum() == 2
    expected = 1 - np.log([7, 3, 1]) / np.log(8001)  # least rank of 40 and 7
    np.testing.assert_allclose(np.sort(batch.scores[0])[-3:], expected, rtol=1e-6)


def test_more_shown_rows_than_the_slate(tmp_path):
    days = default_days()
    extra = [
        row(0, 20 + n, 0, realshow=1, rerank_pos=1, rank_index=20 + n, rerank_index=3 + n)
        for n in range(5)
    ]
    days[DAYS[0]] += extra
    batch = build(write(tmp_path / "d", days), tmp_path, slate=3).splits["train"].batch
    assert batch.exposed[0].sum() == 7
    assert (batch.slate[0] >= 0).all()
    shown = batch.scores[0][batch.slate[0]]
    np.testing.assert_allclose(shown, 1 - np.log([3, 1, 20]) / np.log(8001), rtol=1e-6)
    cut = build(tmp_path / "d", tmp_path, size=6, slate=3)
    assert cut.report["by_day"][DAYS[0]]["shown_rows_beyond_size"] == 1


def test_positives_outside_of_the_pool_are_still_counted(tmp_path):
    days = default_days()
    days[DAYS[2]][2] |= {"realshow": 1, "effective_view": 1}  # shown third
    test = build(write(tmp_path / "d", days), tmp_path, size=2, slate=2).splits["test"]
    assert test.positives[0] == 2
    assert test.batch.labels[0].sum() == 1


def test_histories_drop_what_is_not_before_the_request(tmp_path):
    past = {
        0: history(
            event(10, NOON_MS - 60_000),
            event(11, NOON_MS - 1),
            event(12, NOON_MS),
            event(13, NOON_MS + 5),
        ),
        np.int64(1): history(event(10, NOON_MS - 8000, played=0)),
    }
    folder = write(tmp_path / "d", histories={DAYS[0]: past})
    prepared = build(folder, tmp_path, pool="fill")
    request = prepared.splits["train"].batch.request
    assert request.history_where.sum(axis=1).tolist() == [2, 1, 0]
    assert request.history_where[0, -2:].all()
    shown = column(request, "video_id")[0]
    assert set(request.history[0, -2:, 0]) <= set(shown)
    assert request.history[0, -1, 0] != request.history[0, -2, 0]
    gap, watch = HISTORY.index("gap"), HISTORY.index("watch_ratio")
    assert request.history[1, -1, gap] == 2 + 3  # log2(1 + 8 s)
    assert request.history[1, -1, watch] == 2
    counts = prepared.report["by_day"][DAYS[0]]
    assert counts["history_events_after_request"] == 2
    assert counts["requests_without_history"] == 1


def test_history_padding_is_masked_by_time_not_by_content(tmp_path):
    """Padding of 0 would be a real video id, padding of 2 a real category."""
    days = default_days()
    days[DAYS[0]] += [row(0, 0, 0, rerank_neg=1, rank_index=50, category_level_one=2)]
    folder = write(tmp_path / "d", days, {DAYS[0]: {0: history(event(0, NOON_MS - 9))}})
    request = build(folder, tmp_path).splits["train"].batch.request
    assert request.history_where[0].sum() == 1
    assert request.history[0, -1, 0] >= 2
    assert (request.history[0, :-1] == 0).all()


def test_short_and_misshapen_histories(tmp_path):
    short = np.array([event(10, NOON_MS - 9)])
    folder = write(tmp_path / "short", histories={DAYS[0]: {0: short, 1: np.zeros((0, 10))}})
    request = build(folder, tmp_path, history=50).splits["train"].batch.request
    assert request.history_where.sum(axis=1).tolist() == [1, 0, 0]
    folder = write(tmp_path / "bad", histories={DAYS[0]: {0: np.zeros((50, 9))}})
    with pytest.raises(ValueError, match=r"request 0 is float64\(50, 9\), expected integers"):
        build(folder, tmp_path)


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("missing", [-1, 0, 9999, float("nan"), None])
def test_rank_base_and_sentinels(tmp_path, base, missing):
    days = default_days()
    for rows in days.values():
        for r in rows:
            for name in ("rank_index", "rerank_index"):
                r[name] = float(r[name] - 1 + base) if r[name] else missing
    kinds = {"rank_index": pl.Float64, "rerank_index": pl.Float64}
    prepared = build(write(tmp_path / "d", days, dtypes=kinds), tmp_path)
    assert prepared.report["rank_base"] == {"rank_index": base, "rerank_index": base}
    scores = np.sort(prepared.splits["train"].batch.scores[0])[-3:]
    np.testing.assert_allclose(scores, 1 - np.log([40, 3, 1]) / np.log(8001), rtol=1e-6)


def test_too_few_valid_ranks_fall_back_to_tiers_and_say_so(tmp_path):
    days = default_days()
    for rows in days.values():
        for r in rows:
            r["rank_index"] = r["rank_index"] if r["video_id"] == 10 else -1
    prepared = build(write(tmp_path / "d", days), tmp_path, jitter=False)
    assert prepared.report["score"] == "tier"
    assert any("replaced by 'tier'" in text for text in prepared.report["warnings"])
    expected = 1 - np.log([65, 5, 5]) / np.log(8001)
    scores = np.sort(prepared.splits["train"].batch.scores[0])[-3:]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_stage_flags_and_feedback_of_unshown_rows_do_not_count(tmp_path):
    days = default_days()
    for rows in days.values():
        for r in rows:
            if not r["realshow"]:
                r["effective_view"] = 1
    prepared = build(write(tmp_path / "d", days), tmp_path)
    assert prepared.splits["train"].batch.labels.sum() == 3
    assert prepared.item_popularity.sum() == 3


def test_requests_are_dropped_for_named_reasons(tmp_path):
    days = default_days()
    for day, name in enumerate(DAYS):
        days[name] += [row(50 + day, 12, day, rerank_neg=1)]  # nothing shown
        days[name] += [row(60 + day, 10, day, realshow=1, rerank_neg=1)]  # no positive
        days[name] += [row(-1, 10, day, realshow=1), row(70 + day, -1, day, realshow=1)]
    prepared = build(write(tmp_path / "d", days), tmp_path)
    assert [len(prepared.splits[s].request_id) for s in store.SPLITS] == [3, 4, 4]
    counts = prepared.report["by_day"][DAYS[0]]
    assert counts["requests_without_shown_row"] == 1
    assert counts["requests_not_trainable"] == 1
    assert counts["rows_without_ids"] == 2


def test_a_label_that_is_rarely_positive_warns(tmp_path):
    days = default_days()
    for name in DAYS:
        days[name][1]["like"] = 1
    folder = write(tmp_path / "d", days)
    prepared = build(folder, tmp_path, label="effective_view:1,like:2")
    assert len(prepared.splits["train"].request_id) == 1
    assert any("above 0.5 on" in text for text in prepared.report["warnings"])
    with pytest.raises(ValueError, match="no usable request for train"):
        build(folder, tmp_path, label="comment")


def test_unseen_ids_are_unknown(tmp_path):
    days = default_days()
    days[DAYS[2]] += [row(20, 77, 2, rerank_neg=1, rank_index=50, category_level_one=9)]
    request = build(write(tmp_path / "d", days), tmp_path).splits["test"].batch.request
    assert (column(request, "video_id")[0] == 1).sum() == 1
    assert (column(request, "category_level_one")[0] == 1).sum() == 1


def test_item_vectors_fall_back_to_level_one():
    vectors = item_vectors(
        np.array([2, 3, 4]), [np.array([5, -1, -1]), np.array([1, 1, 2])], 5, width=4, seed=0
    )
    norms = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(norms, [0, 0, 1, 1, 1], rtol=1e-5)
    assert len(np.unique(vectors[2:], axis=0)) == 3


def change(days, day, **values):
    for r in days[day]:
        r |= values
    return days


def test_a_day_whose_ranks_are_gone_is_refused_and_fewer_ranks_are_said(tmp_path):
    days = change(default_days(), DAYS[1], rank_index=-1)
    with pytest.raises(ValueError, match=rf"{DAYS[1]}.*valid in 0% of the rerank rows only"):
        build(write(tmp_path / "none", days), tmp_path)
    assert build(tmp_path / "none", tmp_path, score="tier").report["score"] == "tier"
    days = default_days()
    days[DAYS[1]][2]["rank_index"] = 0  # of nine rerank rows
    report = build(write(tmp_path / "fewer", days), tmp_path).report
    assert report["rank_valid_by_day"] == {DAYS[0]: 1.0, DAYS[1]: pytest.approx(8 / 9), DAYS[2]: 1}
    assert any(f"{DAYS[1]}: rank_index is valid in 89%" in said for said in report["warnings"])


def test_a_day_that_counts_ranks_otherwise_is_refused(tmp_path):
    days = default_days()
    for r in days[DAYS[2]]:
        r["rank_index"] = r["rank_index"] - 1 if r["rank_index"] else 9999
    with pytest.raises(ValueError, match=rf"{DAYS[2]}.*counts from 0, but from 1 on the first"):
        build(write(tmp_path / "d", days), tmp_path)


def test_a_day_without_ids_is_refused(tmp_path):
    days = default_days()
    for r in days[DAYS[1]][3:]:
        r["video_id"] = -1
    with pytest.raises(ValueError, match=rf"{DAYS[1]}.* of 9 candidate rows have a negative or"):
        build(write(tmp_path / "d", days), tmp_path)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"effective_view": 0}, "with 0 effective views: check the feedback columns"),
        ({"realshow": 0}, "with 0 effective views"),
        ({"realshow": 0, "rerank_pos": 0, "rerank_neg": 0, "rank_pos": 0}, "no row of the kept"),
    ],
)
@pytest.mark.parametrize("day", [1, 2])
def test_a_split_that_cannot_measure_is_refused_with_its_cause(tmp_path, values, said, day):
    days = change(default_days(), DAYS[day], **values)
    split = store.SPLITS[day]
    with pytest.raises(ValueError, match=rf"no usable request for {split}: .*{said}"):
        build(write(tmp_path / "d", days), tmp_path)
