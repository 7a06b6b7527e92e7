"""A user's own logs as a reranking task: one long table, one row per candidate.

The table is a Parquet, Arrow or CSV file, a folder of such files, or a frame in memory; `schema`
says how columns are recognised, `checks` what is refused. It is read several times, in batches,
and only the columns in use. Only coded rows stay in memory, at 4 bytes per value.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl
from tqdm import tqdm

from dnr_jax.data import encoders as encoders_
from dnr_jax.data.settings import Shape
from dnr_jax.data.store import SPLITS, Split, Writer
from dnr_jax.data.table import arrays, coding, earlier, fit, history, reader, report
from dnr_jax.data.table.arrays import Recipe
from dnr_jax.data.table.examination import examine, open_known
from dnr_jax.data.table.history import Past
from dnr_jax.data.table.labels import POSITIVE
from dnr_jax.data.table.layout import encoders_of, recipe_of
from dnr_jax.data.table.settings import TableSettings

__all__ = ["build", "check", "examine", "inputs"]


def inputs(path: Path, settings: TableSettings) -> list[Path]:
    """List the files that a run reads, for the fingerprint of the prepared data."""
    sides = [Path(side).expanduser() for side in (settings.user_file, settings.item_file) if side]
    files = [file for part in (path, *sides) for file in reader.find_files(part)[1]]
    own = [Path(settings.schema).expanduser()] if settings.schema else []
    known = [Path(settings.known).expanduser() / encoders_.FILE] if settings.known else []
    return [*files, *own, *known]


def check(path: Path, settings: TableSettings) -> None:
    """Check the names and types of columns, so a bad table fails early.

    Raises:
      FileNotFoundError, ValueError: see `examine`.
    """
    open_known(path, settings)


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
      writer: writes to an empty folder.
      given: see `examine`.
      settings: how the table is read.
      shape: N and K. Longer lists are cut by the first stage's order, and counted; N is at most
        the length of the longest list.
      seed: seed of splits by hash, of the order of candidates and of the item vectors.
      progress: whether to show a progress bar.

    Raises:
      FileNotFoundError, ValueError, TypeError: see `examine`.
    """
    shape.check()
    known = earlier.read(settings)
    seen = examine(given, settings, seed=seed)
    table, z = seen.table, seen.grading.expression()
    longest = int(seen.requests["rows"].max())  # type: ignore[arg-type]
    shape = shape._replace(size=max(shape.slate, min(shape.size, longest)))
    learned = fit.fit(table, seen.requests, z, min_count=settings.min_count, known=known)
    if known is None:
        recipe = recipe_of(table, settings, shape, learned, seed)
    else:
        recipe = earlier.recipe_of(known, shape, seed)
    shape = recipe.shape
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
    coded = coding.request_side(seen.requests, table, learned)
    counts = _write(writer, rows, coded, past, recipe, progress)
    encoders = encoders_of(table, learned, recipe, seen.requests)
    vectors = _vectors(coded, positives, encoders.spec.sizes["item_id"], settings, seed)
    found = report.written(
        report.facts(seen, weight_cap=settings.weight_cap),
        counts,
        past,
        size=shape.size,
        lengths=seen.requests["rows"].to_numpy(),
        score=recipe.score,
    )
    writer.finish(encoders, learned.popularity, vectors, found)


def _write(
    writer: Writer,
    rows: arrays.Rows,
    requests: pl.DataFrame,
    past: Past,
    recipe: Recipe,
    progress: bool,
) -> dict[str, Counter[str]]:
    """Write and count all requests, except training requests without a positive."""
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
    """Number the requests of a chunk, continuing from those already in the split."""
    index: Any = np.arange(first, first + len(chunk.request_id), dtype=np.uint32)
    request = dataclasses.replace(chunk.batch.request, index=index)
    return chunk._replace(batch=dataclasses.replace(chunk.batch, request=request))


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
