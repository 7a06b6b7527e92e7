"""Learn vocabularies, item popularity and item vectors from the training requests."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from dnr_jax.data.encoders import KNOWN, UNKNOWN, Encoders, Vocabulary
from dnr_jax.data.hashing import mix
from dnr_jax.data.store import SPLITS
from dnr_jax.data.table import earlier, hashed, scales
from dnr_jax.data.table.columns import Typed
from dnr_jax.data.table.labels import POSITIVE
from dnr_jax.data.table.reader import collect
from dnr_jax.data.table.scales import Scale
from dnr_jax.data.table.schema import Feature

TRAIN = SPLITS.index("train")
_SIGNS = 100  # first stream of the signs of item vectors


class Learned(NamedTuple):
    """What was learned from the training requests.

    Attributes:
      items: every item of the table, sorted: `item_id`, `v` (uint32, its number), `code` (int32,
        its feature id).
      vocabularies: by column: `user_id`, `item_id`, and every feature of ids.
      longest: by bag, the length of its longest list in training, at least 1.
      scales: scales of the numeric and vector features, by column.
      popularity: `float32 [V]`, training positives of each encoded item.
    """

    items: pl.DataFrame
    vocabularies: dict[str, Vocabulary]
    longest: dict[str, int]
    scales: dict[str, Scale]
    popularity: np.ndarray


def fit(
    table: Typed,
    requests: pl.DataFrame,
    z: pl.Expr,
    *,
    min_count: int,
    known: Encoders | None = None,
) -> Learned:
    """Count the values of the training requests.

    Args:
      table: a table with checked values.
      requests: the result of `splits.assign`.
      z: the feedback.
      min_count: values in fewer rows are unknown; users and request features are counted by
        requests.
      known: encoders of an earlier model, whose values and scales are kept.

    Raises:
      ValueError: the type of ids differs from that in `known`.
    """
    train = requests.filter(pl.col("split") == TRAIN)
    marked = table.frame.join(
        requests.lazy().select("request_id", train=pl.col("split") == TRAIN), on="request_id"
    )
    items = _items(table, marked, train, z).with_columns(
        known=(pl.col("count") > 0) & (pl.col("count") >= min_count)
    )
    words = {"user_id": _user_words(train, min_count)}
    words["item_id"] = Vocabulary(keys(items.filter("known")["item_id"]))
    longest = {}
    for feature in table.schema.features:
        frame = marked.filter("train") if feature.side == "item" else train.lazy()
        if feature.kind in ("id", "bag"):
            words[feature.name] = _words(table, frame, feature, min_count)
        if feature.kind == "bag":
            longest[feature.name] = _longest(table, frame, feature)
    features = table.schema.features
    shared = [feature for feature in features if feature.side != "item"]
    if known is None:
        own = table.schema.of("item", "numeric", "vector")
        found = scales.fit(table, train.lazy(), shared)
        found |= scales.fit(table, marked.filter("train"), own)
    else:
        earlier.check_ids(table, known)
        words = {name: earlier.extended(known.vocabularies[name], w) for name, w in words.items()}
        transforms = known.transforms
        found = scales.read({**transforms["numbers"], **transforms["item_numbers"]})
    items = _coded(items, words["item_id"]).with_row_index("v")
    popularity = np.zeros(words["item_id"].size, np.float32)
    np.add.at(popularity, items["code"].to_numpy(), items["liked"].to_numpy())
    return Learned(items.select("item_id", "v", "code"), words, longest, found, popularity)


def _items(table: Typed, marked: pl.LazyFrame, train: pl.DataFrame, z: pl.Expr) -> pl.DataFrame:
    """List all items, with their training rows (as candidates or in histories) and positives."""
    own = marked.group_by("item_id").agg(
        pl.col("train").sum().alias("count").cast(pl.Int64),
        ((z > POSITIVE) & pl.col("train")).sum().alias("liked").cast(pl.Int64),
    )
    found = collect(own, table.source.files)
    if "history" in train.columns:
        past = train.select(pl.col("history").explode().drop_nulls().alias("item_id"))
        past = past.select(pl.col("item_id").cast(found["item_id"].dtype, strict=False))
        counts = past.drop_nulls().group_by("item_id").agg(count=pl.len().cast(pl.Int64))
        counts = counts.with_columns(liked=pl.lit(0, pl.Int64))
        found = pl.concat([found, counts]).group_by("item_id").agg(pl.all().sum())
    return found.sort("item_id")


def _coded(items: pl.DataFrame, words: Vocabulary) -> pl.DataFrame:
    """Add the feature ids of the items; those that the vocabulary lacks are unknown."""
    keys = pl.Series("item_id", words.keys.tolist(), dtype=items["item_id"].dtype)
    codes = pl.DataFrame([keys, pl.Series("code", range(KNOWN, words.size), dtype=pl.Int32)])
    coded = items.join(codes, on="item_id", how="left", maintain_order="left")
    return coded.with_columns(pl.col("code").fill_null(UNKNOWN))


def _user_words(train: pl.DataFrame, min_count: int) -> Vocabulary:
    if "user_id" not in train.columns:
        return Vocabulary(np.zeros(0, np.int64))
    counts = train.drop_nulls("user_id").group_by("user_id").len()
    return Vocabulary(keys(counts.filter(pl.col("len") >= min_count)["user_id"]))


def _words(table: Typed, frame: pl.LazyFrame, feature: Feature, min_count: int) -> Vocabulary:
    if feature.buckets:
        return hashed.vocabulary(table, feature)
    column = pl.col(feature.name)
    values = frame.select(column.explode() if feature.kind == "bag" else column)
    counts = values.drop_nulls().group_by(feature.name).len()
    found = collect(counts.filter(pl.col("len") >= min_count), table.source.files)
    return Vocabulary(keys(found[feature.name]))


def _longest(table: Typed, frame: pl.LazyFrame, feature: Feature) -> int:
    length = frame.select(pl.col(feature.name).list.len().max())
    return max(1, collect(length, table.source.files).item() or 0)


def keys(values: pl.Series) -> np.ndarray:
    """Return the sorted values as `int64 [n]` or `str [n]`."""
    ordered = values.sort()
    if values.dtype == pl.String:
        return np.array(ordered.to_list(), dtype=np.str_)
    return np.asarray(ordered.to_numpy(), np.int64)


def item_vectors(
    code: np.ndarray, owner: np.ndarray, *, size: int, width: int, seed: int
) -> np.ndarray:
    """Describe items by the users who liked them in training: `float32 [V, width]`.

    For diversity. A random projection of the item-owner matrix: inner products approximate the
    number of shared owners. Items without a training positive get the zero vector.

    Args:
      code: `int32 [P]`, encoded item of each training positive.
      owner: `int64 [P]`, its user, or its request if there are no users.
      size: V.
      width: length of a vector.
      seed: seed of the signs.
    """
    signs = [1.0 - 2.0 * (mix(seed, _SIGNS + d, owner) >> np.uint64(63)) for d in range(width)]
    columns = [np.bincount(code, sign, size) for sign in signs]
    vectors: np.ndarray = (np.stack(columns, 1) / np.sqrt(width)).astype(np.float32)
    vectors[:KNOWN] = 0
    return vectors
