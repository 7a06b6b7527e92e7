"""First pass over the train days: vocabularies, popularity, calibration of ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from dnr_jax.data.encoders import Vocabulary
from dnr_jax.data.recflow import files, rows, scores
from dnr_jax.data.recflow.features import item_vectors
from dnr_jax.data.recflow.rows import Ranks
from dnr_jax.data.recflow.settings import RecFlowSettings

LARGE = ("video_id", "author_id")
SMALL = (*files.USER, *files.ITEM[2:])
COLUMNS = ("request_id", *files.USER, *files.ITEM, *files.FLAGS, *files.INDICES, "effective_view")


class Learned(NamedTuple):
    """What was learned from the train days.

    Attributes:
      ranks: how to read rank columns.
      vocabularies: one per user and item column.
      popularity: `float32 [V]`, shown effective views of each encoded video.
      vectors: `float32 [V, d]`, description of each encoded video.
    """

    ranks: Ranks
    vocabularies: dict[str, Vocabulary]
    popularity: np.ndarray
    vectors: np.ndarray


class _Counts(NamedTuple):
    """Running totals; memory grows with the catalogue, not with the number of rows."""

    values: dict[str, np.ndarray]
    videos: pl.DataFrame
    authors: pl.DataFrame
    shown: np.ndarray
    viewed: np.ndarray


def fit(days: Iterable[files.Day], settings: RecFlowSettings, *, seed: int) -> Learned:
    """Read the train days once, one at a time.

    Raises:
      ValueError: a file is torn, or the calibration has nothing to learn from.
    """
    ranks: Ranks | None = None
    total: _Counts | None = None
    for day in days:
        frame = rows.read(day, COLUMNS, settings)
        if ranks is None:
            ranks = rows.probe(frame, settings.score)
        counts = _count(frame, ranks)
        total = counts if total is None else _merge(total, counts)
    if ranks is None or total is None:
        raise ValueError("no train day to fit on")
    if ranks.score == "calibrated":
        ranks = ranks._replace(table=scores.calibrate(total.shown, total.viewed))
    vocabularies = _vocabularies(total, settings)
    width = settings.vector_size
    described = _catalogue(total.videos, vocabularies["video_id"], width=width, seed=seed)
    return Learned(ranks, vocabularies, *described)


def _count(frame: pl.DataFrame, ranks: Ranks) -> _Counts:
    rank = scores.valid_rank("rank_index", ranks.base["rank_index"]).alias("rank")
    shown = frame.select(*rows.PAIR, "realshow", "effective_view", rank).filter("realshow")
    shown = shown.group_by(rows.PAIR, maintain_order=True).agg(
        pl.col("effective_view").max(), pl.col("rank").min()
    )
    views = shown.group_by("video_id").agg(pl.col("effective_view").sum().alias("views"))
    videos = frame.group_by("video_id", maintain_order=True).agg(
        pl.len().alias("rows"), pl.col("category_level_one", "category_level_two").first()
    )
    place = shown["rank"].fill_null(0).to_numpy().astype(np.int64)
    viewed = shown["effective_view"].to_numpy().astype(float)
    return _Counts(
        {name: frame[name].unique().to_numpy() for name in SMALL},
        videos.join(views, on="video_id", how="left", maintain_order="left").fill_null(0),
        frame.group_by("author_id").agg(pl.len().alias("rows")),
        np.bincount(place, minlength=scores.RANKED + 1)[1:],
        np.bincount(place, viewed, minlength=scores.RANKED + 1)[1:],
    )


def _merge(a: _Counts, b: _Counts) -> _Counts:
    videos = pl.concat([a.videos, b.videos]).group_by("video_id", maintain_order=True)
    return _Counts(
        {name: np.union1d(a.values[name], b.values[name]) for name in SMALL},
        videos.agg(
            pl.col("rows").sum(),
            pl.col("category_level_one", "category_level_two").first(),
            pl.col("views").sum(),
        ),
        pl.concat([a.authors, b.authors]).group_by("author_id").agg(pl.col("rows").sum()),
        a.shown + b.shown,
        a.viewed + b.viewed,
    )


def _vocabularies(total: _Counts, settings: RecFlowSettings) -> dict[str, Vocabulary]:
    found = {name: Vocabulary(_known(values)) for name, values in total.values.items()}
    for name, counts in zip(LARGE, (total.videos, total.authors), strict=True):
        frequent = counts.filter(pl.col("rows") >= settings.min_count)[name].to_numpy()
        found[name] = Vocabulary(_known(frequent), settings.hash_buckets)
    return {name: found[name] for name in (*files.USER, *files.ITEM)}


def _known(values: np.ndarray) -> np.ndarray:
    return np.sort(values[values >= 0])


def _catalogue(
    videos: pl.DataFrame, vocabulary: Vocabulary, *, width: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    encoded = vocabulary.encode(videos["video_id"].to_numpy())
    popularity = np.bincount(encoded, videos["views"].to_numpy(), vocabulary.size)
    levels: Sequence[np.ndarray] = [
        videos[name].to_numpy() for name in ("category_level_two", "category_level_one")
    ]
    vectors = item_vectors(encoded, levels, vocabulary.size, width=width, seed=seed)
    return popularity.astype(np.float32), vectors


def sizes(vocabularies: Mapping[str, Vocabulary]) -> dict[str, int]:
    """Vocabulary size by column, for the report."""
    return {name: vocabulary.size for name, vocabulary in vocabularies.items()}
