"""Raw requests become the arrays that the loader made of the same rows."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import recflow_cases
from recflow_cases import DEFAULTS, NOON_MS

from dnr_jax.data import DATASETS
from dnr_jax.data.recflow import files, pickles, requests, rows
from dnr_jax.data.recflow.features import ITEM
from dnr_jax.data.recflow.settings import RecFlowSimulation
from dnr_jax.data.recflow.simulator import simulate

LAST = "2024-02-18"
WORLD = RecFlowSimulation(users=40, videos=700, days=4, requests_per_user_day=2.0, seed=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recflow") / "sim"
    simulate(path, WORLD, progress=False)
    return path


def raw_requests(folder, prepared):
    """The test requests of a prepared simulation, from its files alone but for the order."""
    frame = pl.read_ipc(folder / "all_stage" / f"{LAST}.feather")
    past = pickles.load_pickle(folder / "seq_effective_50_dict" / f"{LAST}.pkl")
    order = candidate_order(folder)
    by_pair = {(r["request_id"], r["video_id"]): r for r in frame.iter_rows(named=True)}
    made = []
    for request_id in prepared.splits["test"].request_id.tolist():
        shown = [by_pair[request_id, video] for video in order[request_id]]
        events = past[request_id]
        made.append(
            {
                "user": {name: shown[0][name] for name in files.USER},
                "time": shown[0]["request_timestamp"],
                "items": [{name: item[name] for name in requests.ITEM} for item in shown],
                "history": [
                    dict(zip(requests.EVENT, event.tolist(), strict=False))
                    for event in events[events[:, 7] > 0]
                ],
            }
        )
    return made


def candidate_order(folder):
    """Videos of each request in the order in which the loader shuffled them."""
    days, _ = files.find_days(folder, period="all", days=0)
    first, last = (rows.read(day, files.COLUMNS, DEFAULTS) for day in (days[0], days[-1]))
    ranks = rows.probe(first, DEFAULTS.score)
    frame, _ = rows.candidates(last, ranks, DEFAULTS, size=50, seed=0, train=False)
    grouped = frame.group_by("request_id", maintain_order=True).agg("video_id")
    return dict(zip(grouped["request_id"], grouped["video_id"].to_list(), strict=True))


@pytest.mark.parametrize("knobs", [{}, {"min_count": 6}, {"hash_buckets": 64}, {"history": 3}])
def test_raw_requests_give_the_prepared_arrays(folder, tmp_path, knobs):
    prepared = recflow_cases.prepare(tmp_path, {}, folder, **knobs)
    raw = raw_requests(folder, prepared)
    encoded = DATASETS["recflow"].encode(prepared.encoders, raw)
    expected = prepared.splits["test"].batch.request
    for field in dataclasses.fields(expected):
        found, wanted = (getattr(r, field.name) for r in (encoded.request, expected))
        assert (found is None) == (wanted is None), field.name
        np.testing.assert_array_equal(found, wanted, err_msg=field.name)
        assert found is None or found.dtype == wanted.dtype, field.name
    assert encoded.dropped == 0
    unknown = (expected.candidates[..., 0] == 1)[np.asarray(expected.where)].sum()
    assert encoded.unknown.get("item.video_id", 0) == unknown
    assert unknown > 0 or knobs != {"min_count": 6}


@pytest.fixture(scope="module")
def encoders(folder, tmp_path_factory):
    return recflow_cases.prepare(tmp_path_factory.mktemp("cache"), {}, folder).encoders


def test_what_is_left_out_or_never_seen_is_unknown_and_counted(encoders):
    raw = {
        "time": NOON_MS,
        "items": [{}, {"video_id": 10**9, "duration": 20_000}],
        "history": [{"time": NOON_MS - 5000}, {"time": NOON_MS + 5, "video_id": 3}],
    }
    request, unknown, dropped = requests.encode(encoders, [raw], size=3)
    assert request.candidates.shape == (1, 3, len(ITEM))
    np.testing.assert_array_equal(request.user, [[1] * 5])
    np.testing.assert_array_equal(request.candidates[0, 0], [1] * len(ITEM))
    assert request.candidates[0, 1, ITEM.index("duration")] > 1
    np.testing.assert_array_equal(request.where, [[True, True, False]])
    assert request.history_where.sum() == dropped == 1
    assert unknown["item.video_id"] == 2
    assert unknown["item.duration"] == unknown["history.watch_ratio"] == unknown["user.age"] == 1
    assert "context.hour" not in unknown
    seconds = requests.encode(encoders, [raw | {"time": NOON_MS // 1000}], size=3).request
    np.testing.assert_array_equal(seconds.context, request.context)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"items": []}, "request 0 has 0 items: it must have 1 to 50"),
        ({"items": [{}] * 51}, "request 0 has 51 items"),
        ({"items": {}}, "request 0: items is {}: it must be a list"),
        ({"items": [{"video": 3}]}, "item 0: there is no field 'video'; did you mean 'video_id'"),
        ({"items": [{"video_id": "x"}]}, "item 0: video_id is 'x': it must be an integer"),
        ({"user": 3}, "user is a int: it must be a mapping"),
        ({"user": {"age": 2.5}}, r"user: age is 2\.5: it must be an integer"),
        ({"time": None}, "a time of -1: it must be the epoch's"),
        ({"history": [{"video_id": 3}]}, "history event 0 has no 'time'"),
        ({"histroy": []}, "did you mean 'history'"),
    ],
)
def test_misshapen_requests_are_named(encoders, change, said):
    with pytest.raises(ValueError, match=said):
        requests.encode(encoders, [{"time": NOON_MS, "items": [{}]} | change])


def test_no_requests_are_no_error(encoders):
    assert requests.encode(encoders, []).request.candidates.shape == (0, 50, len(ITEM))
