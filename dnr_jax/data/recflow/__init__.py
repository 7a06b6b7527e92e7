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

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from dnr_jax.data.encoders import Encoders
from dnr_jax.data.recflow import arrays, features, files, fit, rows
from dnr_jax.data.recflow.features import Transforms
from dnr_jax.data.recflow.files import Day
from dnr_jax.data.recflow.fit import Learned
from dnr_jax.data.recflow.settings import RecFlowSettings
from dnr_jax.data.settings import Shape
from dnr_jax.data.store import SPLITS, Split, Writer

TRANSFORMS = Transforms()


def inputs(path: Path, settings: RecFlowSettings) -> list[Path]:
    """List the files that a run reads, for the fingerprint of the prepared data.

    Raises:
      FileNotFoundError: a folder is missing.
      ValueError: fewer than three usable days.
    """
    found, _ = files.find_days(path, period=settings.period, days=settings.days)
    return [file for day in found for file in (day.rows, day.history, day.truth) if file]


def check(path: Path, settings: RecFlowSettings) -> None:
    """Read every file's header, so that a run does not die late; cheap.

    Raises:
      FileNotFoundError: a folder is missing.
      ValueError: too few days, a torn file, or missing columns (all named at once).
    """
    found, _ = files.find_days(path, period=settings.period, days=settings.days)
    files.check_columns(found)


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
      writer: of an empty folder.
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
    days, report = files.find_days(path, period=settings.period, days=settings.days)
    report["stripped_columns"] = files.check_columns(days)
    names = [SPLITS[max(0, n - len(days) + 3)] for n in range(len(days))]
    with tqdm(total=2 * len(days) - 2, desc="RecFlow", unit="day", disable=not progress) as bar:
        learned = fit.fit(_watched(days[:-2], bar), settings, seed=seed)
        totals = _Totals(shape.size)
        for day, split in zip(days, names, strict=True):
            for chunk in _day(day, split, learned, settings, shape, seed, totals):
                writer.append(split, chunk)
            bar.update()
    totals.require_all(path)
    report |= totals.report(learned)
    report["findings"] = _findings(learned)
    report["warnings"] = _warnings(report, learned, settings)
    encoders = Encoders(
        spec=features.feature_spec(learned.vocabularies, TRANSFORMS),
        size=shape.size,
        history=settings.history,
        vocabularies=learned.vocabularies,
        tables={},
        transforms=TRANSFORMS._asdict(),
    )
    writer.finish(encoders, learned.popularity, learned.vectors, report)


def _watched(days: list[Day], bar: tqdm) -> Iterator[Day]:
    for day in days:
        yield day
        bar.update()


def _day(
    day: Day,
    split: str,
    learned: Learned,
    settings: RecFlowSettings,
    shape: Shape,
    seed: int,
    totals: _Totals,
) -> Iterator[Split]:
    frame = rows.read(day, files.COLUMNS, settings)
    stamp = pl.from_epoch(rows.seconds("request_timestamp")).dt.offset_by("8h").dt.date()
    other_day = frame.select((stamp.cast(pl.String) != day.name).sum()).item()
    frame = _with_truth(frame, day)
    frame, counts = rows.candidates(
        frame, learned.ranks, settings, size=shape.size, seed=seed, train=split == SPLITS[0]
    )
    totals.add_day(day.name, split, counts | {"rows_of_another_day": other_day}, frame)
    histories = files.load_pickle(day.history) if day.history else {}
    for part in arrays.chunks(frame):
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
    truth = files.collect(files.scan(day.truth), day.truth)
    truth = truth.rename({"relevance": "truth"})
    return frame.join(truth, on=rows.PAIR, how="left", maintain_order="left")


class _Totals:
    """Counts over days and splits, for the report."""

    def __init__(self, size: int):
        self.requests: Counter[str] = Counter()
        self.days: dict[str, Counter[str]] = {}
        self._split_of: dict[str, str] = {}
        self._sizes = {split: np.zeros(size + 1, np.int64) for split in SPLITS}

    def add_day(self, day: str, split: str, counts: dict[str, int], frame: pl.DataFrame) -> None:
        self.days[day] = Counter(counts)
        self._split_of[day] = split
        sizes = frame.group_by("q").len()["len"].to_numpy()
        self._sizes[split] += np.bincount(sizes, minlength=len(self._sizes[split]))

    def require_all(self, path: Path) -> None:
        for split in SPLITS:
            if not self.requests[split]:
                days = {d: dict(c) for d, c in self.days.items() if self._split_of[d] == split}
                raise ValueError(
                    f"{path}: no usable request for {split}: {days}; use more days, a larger "
                    "user_share, or a label that is positive (> 0.5) more often"
                )

    def report(self, learned: Learned) -> dict[str, Any]:
        splits = {split: self._split(split) for split in SPLITS}
        return {
            "splits": splits,
            "by_day": {d: {"split": self._split_of[d], **c} for d, c in self.days.items()},
            "rank_base": learned.ranks.base,
            "rank_valid_fraction": learned.ranks.valid,
            "score": learned.ranks.score,
            "vocabulary_sizes": fit.sizes(learned.vocabularies),
        }

    def _split(self, split: str) -> dict[str, Any]:
        total: Counter[str] = Counter()
        for day, counts in self.days.items():
            if self._split_of[day] == split:
                total.update(counts)
        sizes = np.repeat(np.arange(len(self._sizes[split])), self._sizes[split])
        return {
            **total,
            "positive_rate_of_shown": total["positives"] / total["shown_rows"],
            "candidates": {
                "min": int(sizes.min()),
                "median": float(np.median(sizes)),
                "max": int(sizes.max()),
            },
        }


def _findings(learned: Learned) -> list[str]:
    """Say in words how the rank columns are read."""
    found = learned.ranks.valid.items()  # None for a flag that no row carries
    shares = ", ".join(f"{flag} {share:.0%}" for flag, share in found if share is not None)
    return [f"rank_index starts at {learned.ranks.base['rank_index']}; valid: {shares}"]


def _warnings(report: dict[str, Any], learned: Learned, settings: RecFlowSettings) -> list[str]:
    """Say in words what a user should know before trusting the numbers."""
    said = []
    if report["missing_days"]:
        said.append(f"days missing in the middle: {report['missing_days']}")
    if report["days_without_history"]:
        said.append(f"days without a history file: {report['days_without_history']}")
    unusable = [index for index, base in learned.ranks.base.items() if base is None]
    if unusable:
        said.append(f"no usable value on the first train day in {unusable}: treated as missing")
    if learned.ranks.score != settings.score:
        said.append(
            f"fewer than half of the rerank rows have a valid rank_index (valid by stage: "
            f"{learned.ranks.valid}): score {settings.score!r} replaced by 'tier', which is coarse"
        )
    for split, counts in report["splits"].items():
        if counts["rows_of_another_day"]:
            said.append(
                f"{split}: {counts['rows_of_another_day']} rows lie outside of their file's day "
                "(UTC+8)"
            )
        if 2 * counts["positives"] < counts["effective_views"]:
            said.append(
                f"{split}: label {settings.label!r} is above 0.5 on {counts['positives']} rows "
                f"only, of {counts['effective_views']} effective views"
            )
    return said
