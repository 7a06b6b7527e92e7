"""Code typed rows: ids become integers, at a few bytes per row."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from dnr_jax.data.encoders import KNOWN, UNKNOWN, Vocabulary
from dnr_jax.data.table import hashed, scales
from dnr_jax.data.table.columns import Typed, type_of
from dnr_jax.data.table.fit import Learned
from dnr_jax.data.table.reader import collect
from dnr_jax.data.table.schema import Feature


def rows(
    table: Typed,
    requests: pl.DataFrame,
    learned: Learned,
    z: pl.Expr,
    *,
    unexposed: float,
    weight_cap: float,
) -> pl.DataFrame:
    """Read all candidates, coded; the columns are those of `arrays.Rows`.

    Args:
      table: a table with checked values.
      requests: `q` and `request_id` of all requests.
      learned: the vocabularies.
      z: the feedback.
      unexposed: weight of labelled candidates that were not shown.
      weight_cap: upper limit of the weight 1 / propensity.
    """
    names = set(table.frame.collect_schema().names())
    frame = table.frame.join(requests.lazy().select("request_id", "q"), on="request_id")
    frame = frame.join(learned.items.lazy(), on="item_id")
    features = table.schema.of("item", "id", "bag")
    for feature in features:
        frame = code(frame, feature, learned.vocabularies[feature.name])
    numbers = table.schema.of("item", "numeric", "vector")
    own = {feature.name: learned.scales[feature.name] for feature in numbers}
    exposed = _exposed(names, z)
    position = pl.col("position").fill_null(0) if "position" in names else pl.lit(0)
    coded = frame.select(
        "q",
        "v",
        "code",
        score(names).alias("score"),
        z.fill_null(0.0).alias("z"),
        _weight(names, z, exposed, unexposed, weight_cap).cast(pl.Float32).alias("weight"),
        exposed.alias("exposed"),
        pl.when(exposed).then(position).otherwise(0).cast(pl.UInt32).alias("position"),
        *(feature.name for feature in features),
        *(name for name, scale in own.items() if scale.mean),
        *scales.scaled(own),
    )
    return collect(coded, table.source.files)


def has_score(names: Iterable[str]) -> bool:
    """Tell whether there is a first stage."""
    return bool({"score", "rank"} & set(names))


def score(names: set[str]) -> pl.Expr:
    """Return the first-stage raw score: higher is better; 0 if there is none."""
    if "score" in names:
        return pl.col("score")
    return -pl.col("rank") if "rank" in names else pl.lit(0.0)


def _exposed(names: set[str], z: pl.Expr) -> pl.Expr:
    """Decide what was shown: by the column `exposed`, else by position, else by judgement."""
    if "exposed" in names:
        return pl.col("exposed").fill_null(False)
    return (pl.col("position") if "position" in names else z).is_not_null()


def _weight(
    names: set[str], z: pl.Expr, exposed: pl.Expr, unexposed: float, weight_cap: float
) -> pl.Expr:
    weight = pl.when(exposed).then(1.0).otherwise(unexposed)
    if "weight" in names:
        weight = weight * pl.col("weight").fill_null(1.0)
    if "propensity" in names:
        weight = weight * pl.min_horizontal(1 / pl.col("propensity").fill_null(1.0), weight_cap)
    return pl.when(z.is_not_null()).then(weight).otherwise(0.0)


def code(frame: pl.LazyFrame, feature: Feature, words: Vocabulary) -> pl.LazyFrame:
    """Replace a column by its feature ids; a value that is not in the vocabulary is unknown.

    A hashed column becomes a list of two ids per value.
    """
    if words.buckets:
        return hashed.code(frame, feature, words)
    name = feature.name
    if feature.kind == "bag":
        return frame.with_columns(pl.col(name).list.eval(ids(pl.element(), words)))
    keys, codes = _codes(words)
    joined = frame.join(pl.LazyFrame([keys.alias(name), codes]), on=name, how="left")
    found = pl.col(codes.name)
    return joined.with_columns(found.fill_null(UNKNOWN).alias(name)).drop(codes.name)


def ids(values: pl.Expr, words: Vocabulary) -> pl.Expr:
    """Look values up in a vocabulary: null and values that it lacks become `UNKNOWN`.

    For frames in memory. A join, as in `code`, builds its hash table once for all batches of a
    query but copies every column; this copies none but builds the table for each batch.
    """
    keys, codes = _codes(words)
    known = values.cast(keys.dtype, strict=False)
    return known.replace_strict(keys, codes, default=UNKNOWN, return_dtype=pl.Int32)


def _codes(words: Vocabulary) -> tuple[pl.Series, pl.Series]:
    """Return the known values and their ids."""
    keys = pl.Series("key of it", words.keys.tolist(), dtype=type_of(words))
    return keys, pl.Series("code of it", range(KNOWN, words.size), dtype=pl.Int32)


def request_side(requests: pl.DataFrame, table: Typed, learned: Learned) -> pl.DataFrame:
    """Code the user and the features of user and context; without users, all are unknown."""
    user = Feature("user_id", "user", "id")
    frame = requests.lazy()
    if "user_id" not in requests.columns:
        frame = frame.with_columns(user_id=pl.lit(None, pl.Int64))
    features = (
        user,
        *table.schema.of("user", "id", "bag"),
        *table.schema.of("context", "id", "bag"),
    )
    for feature in features:
        frame = code(frame, feature, learned.vocabularies[feature.name])
    sides = [*table.schema.of("user", "numeric"), *table.schema.of("context", "numeric")]
    numbers = {feature.name: learned.scales[feature.name] for feature in sides}
    return frame.with_columns(scales.scaled(numbers)).collect().sort("q")
