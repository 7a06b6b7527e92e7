"""Small hand-made RecFlow folders for the loader's tests."""

import dataclasses
import pickle
from datetime import UTC, datetime

import numpy as np
import polars as pl

from dnr_jax.data import recflow, store
from dnr_jax.data.recflow import files
from dnr_jax.data.recflow.features import ITEM
from dnr_jax.data.recflow.settings import RecFlowSettings
from dnr_jax.data.settings import Shape

DEFAULTS = RecFlowSettings(history=20, pool="strict", min_count=1)
DAYS = ("2024-02-16", "2024-02-17", "2024-02-18")
NOON_MS = int(datetime(2024, 2, 16, 4, 30, tzinfo=UTC).timestamp()) * 1000  # 12:30 in Beijing
DAY_MS = 86_400_000


def row(request, video, day=0, **change):
    base = dict.fromkeys(files.COLUMNS, 0)
    base |= {
        "request_id": request,
        "video_id": video,
        "request_timestamp": NOON_MS + day * DAY_MS,
        "upload_timestamp": NOON_MS // 1000 - 3 * 86400,
        "duration": 20_000,
        "category_level_two": video % 3,
        "author_id": video // 2,
    }
    return base | change


def request_rows(request, day):
    """Two shown rows (one viewed), one rerank loser, one rank loser, one early loser."""
    return [
        row(request, 10, day, realshow=1, rerank_pos=1, rank_pos=1, rank_index=1, rerank_index=2),
        row(request, 11, day, realshow=1, rerank_pos=1, rank_pos=1, rank_index=3, rerank_index=1)
        | {"effective_view": 1},
        row(request, 12, day, rerank_neg=1, rank_index=40, rerank_index=30),
        row(request, 13, day, rank_neg=1, rank_index=300),
        row(request, 14, day, coarse_neg=1),
    ]


def default_days():
    return {
        name: [r for n in range(3) for r in request_rows(10 * day + n, day)]
        for day, name in enumerate(DAYS)
    }


def write(folder, days=None, histories=None, dtypes=None):
    for name, rows in (days or default_days()).items():
        for kind in ("all_stage", "seq_effective_50_dict"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        frame = pl.DataFrame(rows).cast(dtypes or {})
        frame.write_ipc(folder / "all_stage" / f"{name}.feather")
        past = (histories or {}).get(name, {})
        with open(folder / "seq_effective_50_dict" / f"{name}.pkl", "wb") as file:
            pickle.dump(past, file, protocol=4)
    return folder


def prepare(cache, recipe, folder, *, size=50, slate=6, seed=0, **knobs):
    """Prepare `folder` with `knobs` in place of some of `DEFAULTS`."""
    settings = dataclasses.replace(DEFAULTS, **knobs)

    def fill(writer):
        recflow.build(writer, folder, settings, Shape(size, slate), seed=seed, progress=False)

    return store.prepare(cache, recipe, fill)


def build(folder, tmp_path, **change):
    return prepare(tmp_path / f"cache-{len(list(tmp_path.iterdir()))}", {}, folder, **change)


def column(request, name):
    return request.candidates[..., ITEM.index(name)]


def event(video, time, request=0, played=15_000):
    return [video, video // 2, video % 3, 0, 0, NOON_MS // 1000, 20_000, time, played, request]


def history(*events):
    array = np.zeros((50, 10), np.int64)
    array[:, 3] = 2
    array[50 - len(events) :] = events
    return array
