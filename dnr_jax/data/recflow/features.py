"""Feature ids of RecFlow requests: vocabularies fitted on train days, time and size buckets.

0 is padding, 1 unknown, known values start at 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dnr_jax.data.encoders import KNOWN, UNKNOWN, Vocabulary
from dnr_jax.data.recflow import files
from dnr_jax.data.recflow.rows import SECONDS_LIMIT
from dnr_jax.types import FeatureSpec

CONTEXT = ("weekday", "hour", "minute")
ITEM = (*files.ITEM, "upload_weekday", "upload_hour", "age_days", "duration")
HISTORY = (
    "video_id",
    "author_id",
    "category_level_two",
    "category_level_one",
    "upload_type",
    "gap",
    "watch_ratio",
)
# Columns of a history array, in the order of the files.
HISTORY_UPLOAD, HISTORY_DURATION, HISTORY_TIME, HISTORY_PLAYED = 5, 6, 7, 8


class Transforms(NamedTuple):
    """The numbers that features are made with, as stored beside the vocabularies.

    Attributes:
      duration_edges: of the buckets of a video's length, in milliseconds.
      watch_edges: of the buckets of the share that was watched.
      age_buckets, gap_buckets: numbers of buckets, each twice as wide as the one before.
      utc_offset: seconds that the clock is ahead of UTC.
    """

    duration_edges: tuple[float, ...] = tuple(np.geomspace(1e3, 6e5, 15).tolist())
    watch_edges: tuple[float, ...] = (0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.6)
    age_buckets: int = 12
    gap_buckets: int = 24
    utc_offset: int = 8 * 3600  # day files are cut at midnight in Beijing, without summer time

    def buckets(self) -> dict[str, int]:
        """Return the number of known ids of each column that has no vocabulary."""
        return {
            "weekday": 7,
            "hour": 24,
            "minute": 60,
            "upload_weekday": 7,
            "upload_hour": 24,
            "age_days": self.age_buckets,
            "duration": len(self.duration_edges) + 1,
            "gap": self.gap_buckets,
            "watch_ratio": len(self.watch_edges) + 1,
        }


def feature_spec(vocabularies: Mapping[str, Vocabulary], transforms: Transforms) -> FeatureSpec:
    """Describe all feature columns, request side and item side."""
    sizes = {name: v.size for name, v in vocabularies.items()}
    sizes |= {name: KNOWN + count for name, count in transforms.buckets().items()}
    return FeatureSpec(files.USER, CONTEXT, HISTORY, ITEM, sizes)


def clock(epoch_seconds: np.ndarray, transforms: Transforms) -> dict[str, np.ndarray]:
    """Weekday (Monday first), hour and minute on the transforms' clock, as feature ids."""
    local = epoch_seconds + transforms.utc_offset
    return {
        "weekday": KNOWN + (local // 86400 + 3) % 7,  # 1970-01-01 was a Thursday
        "hour": KNOWN + local // 3600 % 24,
        "minute": KNOWN + local // 60 % 60,
    }


def item_columns(
    rows: Mapping[str, np.ndarray],
    vocabularies: Mapping[str, Vocabulary],
    transforms: Transforms,
) -> np.ndarray:
    """Encode candidate rows to `int32 [rows, len(ITEM)]`.

    Args:
      rows: `files.ITEM` columns, `upload_seconds`, `request_seconds`, `duration` (milliseconds).
      vocabularies: one per `files.ITEM` column.
      transforms: of times and lengths.
    """
    encoded = [vocabularies[name].encode(rows[name]) for name in files.ITEM]
    uploaded = rows["upload_seconds"]
    upload = clock(uploaded, transforms)
    age_days = np.maximum(rows["request_seconds"] - uploaded, 0) / 86400
    age = KNOWN + np.minimum(np.log2(1 + age_days).astype(np.int64), transforms.age_buckets - 1)
    times = (np.where(uploaded > 0, t, UNKNOWN) for t in (upload["weekday"], upload["hour"], age))
    length = KNOWN + np.searchsorted(transforms.duration_edges, rows["duration"], side="right")
    length = np.where(rows["duration"] > 0, length, UNKNOWN)
    return np.stack([*encoded, *times, length], axis=-1).astype(np.int32)


def history_columns(
    events: np.ndarray,
    request_time: np.ndarray,
    vocabularies: Mapping[str, Vocabulary],
    transforms: Transforms,
    length: int,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Encode histories; events at or after their request are dropped (they would leak).

    Args:
      events: `int64 [R, L, 10]` as in the files; real where the event has a time.
      request_time: `int64 [R]`, epoch milliseconds.
      vocabularies: the item vocabularies.
      transforms: of times and shares.
      length: events kept T.

    Returns:
      ids `int32 [R, T, len(HISTORY)]` (latest last, left-padded with 0), `bool [R, T]` where they
      are real, and how many events were dropped as leaks.
    """
    time, now = _milliseconds(events[..., HISTORY_TIME]), _milliseconds(request_time)[:, None]
    recorded = time > 0
    real = recorded & (time < now)
    order = np.argsort(np.where(real, time, 0), axis=1, kind="stable")[:, -length:]
    events = np.take_along_axis(events, order[..., None], axis=1)
    time, where = (np.take_along_axis(a, order, axis=1) for a in (time, real))
    ids = [vocabularies[name].encode(events[..., n]) for n, name in enumerate(HISTORY[:5])]
    gap = np.log2(1 + np.maximum(now - time, 0) / 1000).astype(np.int32)
    ids.append(KNOWN + np.minimum(gap, transforms.gap_buckets - 1))
    played = events[..., HISTORY_PLAYED]
    ratio = played / np.maximum(events[..., HISTORY_DURATION], 1)
    watched = KNOWN + np.searchsorted(transforms.watch_edges, ratio, side="right")
    ids.append(np.where(played >= 0, watched, UNKNOWN))
    stacked = np.where(where[..., None], np.stack(ids, axis=-1), 0).astype(np.int32)
    return *_pad_left(stacked, where, length), int((recorded & ~real).sum())


def _milliseconds(time: np.ndarray) -> np.ndarray:
    return np.where(time > SECONDS_LIMIT, time, time * 1000)


def seconds(time: np.ndarray) -> np.ndarray:
    """Epoch seconds `int64` of times that may be in milliseconds, as `rows.seconds`."""
    return np.where(time > SECONDS_LIMIT, time // 1000, time)


def _pad_left(ids: np.ndarray, where: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    missing = length - where.shape[1]
    if missing <= 0:
        return ids, where
    return np.pad(ids, ((0, 0), (missing, 0), (0, 0))), np.pad(where, ((0, 0), (missing, 0)))


def item_vectors(
    video: np.ndarray, categories: Sequence[np.ndarray], size: int, *, width: int, seed: int
) -> np.ndarray:
    """Give every encoded video the random unit vector of its category, for diversity measures.

    Args:
      video: `int32 [videos]`, encoded ids.
      categories: two `int64 [videos]`: level two, and level one for where that is missing (< 0).
      size: size of the video vocabulary V.
      width: length of a vector.
      seed: the vector is a function of it and of the category.

    Returns:
      `float32 [V, width]`; zero rows for padding and unknown.
    """
    low, high = categories
    category = np.where(low >= 0, low, high)
    level = np.where(low >= 0, 0, 1)
    pairs, place = np.unique(np.stack([level, category], 1), axis=0, return_inverse=True)
    table = np.zeros((len(pairs), width), np.float32)
    for row, pair in enumerate(pairs):
        vector = np.random.default_rng([seed, *np.maximum(pair, 0)]).normal(size=width)
        table[row] = vector / np.linalg.norm(vector)
    vectors = np.zeros((size, width), np.float32)
    vectors[video] = table[place.reshape(-1)]
    vectors[:KNOWN] = 0
    return vectors
