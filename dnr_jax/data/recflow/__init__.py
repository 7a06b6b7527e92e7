"""RecFlow (Liu et al. 2024, arXiv 2410.20868) as a reranking task, read day by day.

Candidates are logged rows of the rerank stage (and, to fill up, of the stages before it), the
first-stage score is a function of the logged rank, and shown rows carry feedback. Memory is
bounded by one day: its candidate rows (about 140 bytes each before sorting, so some 7 GB for the
48 million rows of a full day with `pool="fill"`; "strict" reads far fewer and `user_share` divides
both), its history pickle and one chunk of arrays. What the logs know only after the request
(`rerank_index`, stage flags, `playing_time`, feedback) is never a feature; a history holds only
what happened before its request.

The last day is test, the one before it validation, all others train. Train requests have a judged
positive and a judged non-positive candidate. Validation and test keep every request that showed
something: those without a positive are for metrics to exclude and count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import polars as pl
from tqdm import tqdm

from dnr_jax.ahead import one_ahead
from dnr_jax.data.encoders import Encoders
from dnr_jax.data.recflow import (
    arrays,
    columns,
    features,
    files,
    fit,
    pickles,
    report,
    rows,
)
from dnr_jax.data.recflow.features import Transforms
from dnr_jax.data.recflow.files import Day
from dnr_jax.data.recflow.fit import Learned
from dnr_jax.data.recflow.report import Totals, check_day
from dnr_jax.data.recflow.settings import RecFlowSettings
from dnr_jax.data.settings import Shape
from dnr_jax.data.store import SPLITS, Split, Writer

TRANSFORMS = Transforms()
T = TypeVar("T")
R = TypeVar("R")


def inputs(path: Path, settings: RecFlowSettings) -> list[Path]:
    """List the files that a run reads, for the fingerprint of the prepared data.

    Raises:
      FileNotFoundError: a folder is missing.
      ValueError: fewer than three usable days.
    """
    found, _ = files.find_days(path, period=settings.period, days=settings.days)
    return [file for day in found for file in (day.rows, day.history, day.truth) if file]


def check(path: Path, settings: RecFlowSettings) -> None:
    """Read every file's header, which is cheap, so a bad file fails early.

    Raises:
      FileNotFoundError: a folder is missing.
      ValueError: too few days, a torn file, or missing columns (all named at once).
    """
    found, _ = files.find_days(path, period=settings.period, days=settings.days)
    columns.check_headers(found)


def build(
    writer: Writer,
    path: Path,
    settings: RecFlowSettings,
    shape: Shape,
    *,
    seed: int,
    progress: bool,
) -> None:
    """Read a RecFlow folder, real or simulated, into `writer`.

    Two passes: vocabularies on train days, then candidate sets of every day, in date order.

    Args:
      writer: writes to an empty folder.
      path: the folder that holds `all_stage/`.
      settings: what to read, and how.
      shape: candidates N and places K; more shown rows stay exposed candidates beyond the slate.
      seed: of sampling, jitter, candidate order and item vectors.
      progress: shows a bar.

    Raises:
      FileNotFoundError: a folder is missing.
      ValueError: too few days, torn files, missing columns, fewer candidates than places, or a
        split without a usable request.
    """
    shape.check()
    days, found = files.find_days(path, period=settings.period, days=settings.days)
    found["stripped_columns"] = columns.check_headers(days)
    for day in days:
        columns.check_values(day.rows)
    names = [SPLITS[max(0, n - len(days) + 3)] for n in range(len(days))]
    with tqdm(total=2 * len(days) - 2, desc="RecFlow", unit="day", disable=not progress) as bar:
        learned = fit.fit(_watched(days[:-2], bar), settings, seed=seed)
        totals = Totals(shape.size)

        def choose(named: tuple[Day, str]) -> _Chosen:
            day, split = named
            train = split == SPLITS[0]
            return _choose(day, learned, settings, size=shape.size, seed=seed, train=train)

        every = list(zip(days, names, strict=True))
        for (day, split), chosen in zip(every, _made_ahead(every, choose), strict=True):
            for chunk in _arrays(day, split, chosen, learned, settings, shape, totals):
                writer.append(split, chunk)
            bar.update()
    totals.require_all(path, settings.label)
    found |= totals.report(learned)
    found["findings"] = report.findings(learned)
    found["warnings"] = report.warnings(found, learned, settings)
    encoders = Encoders(
        spec=features.feature_spec(learned.vocabularies, TRANSFORMS),
        size=shape.size,
        history=settings.history,
        vocabularies=learned.vocabularies,
        tables={},
        transforms=TRANSFORMS._asdict(),
    )
    writer.finish(encoders, learned.popularity, learned.vectors, found)


def _watched(days: list[Day], bar: tqdm) -> Iterator[Day]:
    for day in days:
        yield day
        bar.update()


class _Chosen(NamedTuple):
    """A day's candidate sets, and what was counted on the way to them."""

    frame: pl.DataFrame
    counts: dict[str, Any]
    rank_share: float | None


def _made_ahead(days: Iterable[T], make: Callable[[T], R]) -> Iterator[R]:
    """Yield `make(day)` for each day; meanwhile a thread works on the next day."""
    with ThreadPoolExecutor(1) as thread:
        for coming in one_ahead(thread.submit(make, day) for day in days):
            yield coming.result()


def _choose(
    day: Day, learned: Learned, settings: RecFlowSettings, *, size: int, seed: int, train: bool
) -> _Chosen:
    frame = rows.read(day, files.COLUMNS, settings)
    own = (date.fromisoformat(day.name) - date(1970, 1, 1)).days
    local = rows.seconds("request_timestamp") + TRANSFORMS.utc_offset
    other_day = frame.select((local // 86400 != own).sum()).item()
    rank_share = rows.check_ranks(frame, learned.ranks, day.rows)
    frame, counts = rows.candidates(
        _with_truth(frame, day), learned.ranks, settings, size=size, seed=seed, train=train
    )
    check_day(counts, day.rows)
    return _Chosen(frame, counts | {"rows_of_another_day": other_day}, rank_share)


def _arrays(
    day: Day,
    split: str,
    chosen: _Chosen,
    learned: Learned,
    settings: RecFlowSettings,
    shape: Shape,
    totals: Totals,
) -> Iterator[Split]:
    totals.add_day(day.name, split, chosen.counts, chosen.frame, chosen.rank_share)
    histories = pickles.load_pickle(day.history) if day.history else {}
    for part in arrays.chunks(chosen.frame):
        chunk, counts = arrays.split_arrays(
            part,
            histories,
            day.history or "",
            vocabularies=learned.vocabularies,
            transforms=TRANSFORMS,
            shape=shape,
            history=settings.history,
            first_index=totals.requests[split],
        )
        totals.requests[split] += len(chunk.request_id)
        totals.days[day.name].update(counts)
        yield chunk


def _with_truth(frame: pl.DataFrame, day: Day) -> pl.DataFrame:
    if day.truth is None:
        return frame.with_columns(truth=pl.lit(None, pl.Float32))
    truth = files.scan(day.truth)
    wanted = {"request_id": pl.Int64, "video_id": pl.Int64, "relevance": pl.Float32}
    seen = truth.collect_schema()
    if {name: seen.get(name) for name in wanted} != wanted:
        raise ValueError(
            f"{day.truth} is not the truth of a simulation (it has {dict(seen)}): delete it, or "
            "the whole folder to simulate anew"
        )
    known = files.collect(truth.select(list(wanted)), day.truth).rename({"relevance": "truth"})
    return frame.join(known, on=rows.PAIR, how="left", maintain_order="left")
