"""A user's own logs as a reranking task: one long table, a row a candidate.

The table is a Parquet, Arrow or CSV file, a folder of such files, or a frame in memory; `schema`
says how columns are recognised, `checks` what is refused. It is read several times, in batches and
only the columns in use; what stays in memory are coded rows, of 4 bytes a value.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import polars as pl
from tqdm import tqdm

from dnr_jax.data.encoders import Encoders
from dnr_jax.data.settings import Shape
from dnr_jax.data.store import SPLITS, Split, Writer
from dnr_jax.data.table import (
    arrays,
    checks,
    coding,
    columns,
    fit,
    groups,
    history,
    labels,
    reader,
    report,
    splits,
)
from dnr_jax.data.table.arrays import Recipe
from dnr_jax.data.table.columns import Typed
from dnr_jax.data.table.history import Past
from dnr_jax.data.table.labels import POSITIVE, Grading
from dnr_jax.data.table.reader import Source, open_table
from dnr_jax.data.table.schema import Schema, understand
from dnr_jax.data.table.settings import TableSettings
from dnr_jax.types import FeatureSpec


class Examined(NamedTuple):
    """A table whose every value was looked at.

    Attributes:
      table: typed.
      rows: number of its rows.
      grading: how its labels are read.
      requests: of `splits.assign`.
      splits: how requests were put into splits, in words.
    """

    table: Typed
    rows: int
    grading: Grading
    requests: pl.DataFrame
    splits: str


def inputs(path: Path, settings: TableSettings) -> list[Path]:
    """List the files that a run reads, for the fingerprint of the prepared data."""
    schema = [Path(settings.schema).expanduser()] if settings.schema else []
    return [*reader.find_files(path)[1], *schema]


def check(path: Path, settings: TableSettings) -> None:
    """Look at names and types of columns, so that a run does not die late.

    Raises:
      FileNotFoundError, ValueError: see `examine`.
    """
    _open(path, settings)


def examine(given: Any, settings: TableSettings, *, seed: int) -> Examined:
    """Look at every value of a table before any long work.

    Args:
      given: a path, or a frame of polars, pandas or pyarrow.
      settings: how it is read.
      seed: of the hashes that requests are split by.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the first thing found to be wrong: place, value, what was expected, the cure.
      TypeError: a frame of an unknown kind.
    """
    source, schema = _open(given, settings)
    table = columns.typed(source, schema, _time_unit(source, schema))
    rows = checks.check_values(table, score_as_is=settings.score == "as_is")
    grading = labels.grading(table, settings)
    gathered = groups.gather(table, grading.expression())
    requests, words = splits.assign(gathered, settings, seed=seed, place=source.place)
    return Examined(table, rows, grading, requests, words)


def _open(given: Any, settings: TableSettings) -> tuple[Source, Schema]:
    source = open_table(given)
    schema = understand(source.types, settings.naming, source.place)
    checks.check_types(source, schema)
    if not schema.labels:
        raise ValueError(
            f"{source.place} has no label: name the column, as in columns=label=YOURS; its columns "
            f"are {', '.join(source.types)}"
        )
    if settings.score in ("as_is", "sigmoid") and "score" not in schema.columns:
        raise ValueError(
            f"score is {settings.score}, but {source.place} has no column score: choose minmax"
        )
    return source, schema


def _time_unit(source: Source, schema: Schema) -> str:
    name = schema.columns.get("timestamp")
    if name is None:
        return ""
    kind, low, high = source.types[name], None, None
    if kind.is_numeric():
        value = pl.col(name).cast(pl.Float64)
        found = source.frame.select(value.min().alias("low"), value.max().alias("high"))
        low, high = reader.collect(found, source.files).row(0)
    try:
        return columns.time_unit(kind, low, high)
    except ValueError as error:
        raise ValueError(
            f"{source.place}: column {name} holds times {error}: write all of them in one unit"
        ) from None


def build(
    writer: Writer,
    given: Any,
    settings: TableSettings,
    shape: Shape,
    *,
    seed: int,
    progress: bool,
) -> None:
    """Read a table into `writer`.

    Args:
      writer: of an empty folder.
      given: see `examine`.
      settings: how it is read.
      shape: N and K. Longer lists are cut by the first stage's order, and counted; N is no more
        than the longest list.
      seed: of splits by hash, of the order of candidates and of the item vectors.
      progress: shows a bar.

    Raises:
      FileNotFoundError, ValueError, TypeError: see `examine`.
    """
    shape.check()
    seen = examine(given, settings, seed=seed)
    table, z = seen.table, seen.grading.expression()
    longest = int(seen.requests["rows"].max())  # type: ignore[arg-type]
    shape = shape._replace(size=max(shape.slate, min(shape.size, longest)))
    learned = fit.fit(table, seen.requests, z, min_count=settings.min_count)
    rows = arrays.order_rows(
        coding.rows(
            table,
            seen.requests,
            learned,
            z,
            unexposed=settings.unexposed,
            weight_cap=settings.weight_cap,
        ),
        len(seen.requests),
    )
    positives = rows.frame.filter((pl.col("z") > POSITIVE) & (pl.col("weight") > 0))
    past = history.past(seen.requests, learned.items, positives.select("q", "code"))
    recipe = _recipe(table, settings, shape, learned.longest, seed)
    coded = coding.request_side(seen.requests, table, learned)
    counts = _write(writer, rows, coded, past, recipe, progress)
    encoders = _encoders(table, learned, recipe)
    vectors = _vectors(coded, positives, encoders.spec.sizes["item_id"], settings, seed)
    found = report.written(
        report.facts(table, seen.requests, seen.grading, seen.splits, seen.rows),
        counts,
        past,
        size=shape.size,
        lengths=seen.requests["rows"].to_numpy(),
        score=recipe.score,
    )
    writer.finish(encoders, learned.popularity, vectors, found)


def _recipe(
    table: Typed, settings: TableSettings, shape: Shape, longest: Mapping[str, int], seed: int
) -> Recipe:
    """Lay out the columns; a bag takes as many as its longest list, and at most `settings.bag`."""
    user, context, item = (
        {
            feature.name: min(settings.bag, longest.get(feature.name, 1))
            for feature in table.schema.of(side, "id", "bag")
        }
        for side in ("user", "context", "item")
    )
    score = settings.score if coding.has_score(table.schema.columns) else ""
    return Recipe(shape, settings.history, score, user, context, item, seed)


def _write(
    writer: Writer,
    rows: arrays.Rows,
    requests: pl.DataFrame,
    past: Past,
    recipe: Recipe,
    progress: bool,
) -> dict[str, Counter[str]]:
    """Write all requests, those of training that hold no positive left out, and count them."""
    counts = {name: Counter[str]() for name in SPLITS}
    bar = tqdm(total=len(requests), desc="table", unit="request", disable=not progress)
    with bar:
        for chunk, split in arrays.chunks(rows, requests, past, recipe):
            for number, name in enumerate(SPLITS):
                own = split == number
                if not own.any():
                    continue
                part = _take(chunk, own)
                kept = arrays.keep_trainable(part) | (name != SPLITS[0])
                counts[name]["requests_without_positive_dropped"] += int((~kept).sum())
                part = _number(_take(part, kept), counts[name]["requests_kept"])
                counts[name].update(arrays.tally(part))
                writer.append(name, part)
            bar.update(len(split))
    return counts


def _take(chunk: Split, rows: np.ndarray) -> Split:
    taken: Split = jax.tree.map(lambda array: array[rows], chunk)
    return taken


def _number(chunk: Split, first: int) -> Split:
    """Number the requests of a chunk on from what the split holds."""
    index: Any = np.arange(first, first + len(chunk.request_id), dtype=np.uint32)
    request = dataclasses.replace(chunk.batch.request, index=index)
    return chunk._replace(batch=dataclasses.replace(chunk.batch, request=request))


def _encoders(table: Typed, learned: fit.Learned, recipe: Recipe) -> Encoders:
    """Collect what makes arrays of raw requests; a bag stands several times among the columns."""
    kinds = {feature.name: feature.kind for feature in table.schema.features}
    sides = {"user": recipe.user, "context": recipe.context, "item": recipe.item}
    user, context, item = (
        tuple(name for name, width in side.items() for _ in range(width)) for side in sides.values()
    )
    spec = FeatureSpec(
        user=("user_id", *user),
        context=context,
        history=("item_id",),
        item=("item_id", *item),
        sizes={name: words.size for name, words in learned.vocabularies.items()},
    )
    return Encoders(
        spec=spec,
        size=recipe.shape.size,
        history=recipe.history,
        vocabularies=learned.vocabularies,
        tables={},
        transforms={"score": recipe.score, "kinds": kinds, "widths": sides},
    )


def _vectors(
    requests: pl.DataFrame, positives: pl.DataFrame, size: int, settings: TableSettings, seed: int
) -> np.ndarray:
    """Describe items by the users, or the requests, of their training positives."""
    train = requests["split"].to_numpy() == fit.TRAIN
    users = requests["user_id"].to_numpy().astype(np.int64)
    owners = users if (users > 1).any() else np.arange(len(requests))
    q = positives["q"].to_numpy()
    own = train[q]
    return fit.item_vectors(
        positives["code"].to_numpy()[own],
        owners[q[own]],
        size=size,
        width=settings.vector_size,
        seed=seed,
    )
