"""The loader's findings, as numbers for the report and as words for the user."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dnr_jax.data.recflow import files, fit
from dnr_jax.data.recflow.fit import Learned
from dnr_jax.data.recflow.settings import RecFlowSettings
from dnr_jax.data.store import SPLITS

MOST_LOST = 0.5  # share of a day's rows that may lack an id
WORTH_SAYING = 0.01  # a loss above this share of a day's rows is a warning
FEWER_RANKS = 0.05  # by how much the share of valid ranks may fall without a warning


class Totals:
    """Counts over days and splits."""

    def __init__(self, size: int):
        self.requests: Counter[str] = Counter()
        self.days: dict[str, Counter[str]] = {}
        self._split_of: dict[str, str] = {}
        self._rank_share: dict[str, float | None] = {}
        self._sizes = {split: np.zeros(size + 1, np.int64) for split in SPLITS}

    def add_day(
        self,
        day: str,
        split: str,
        counts: dict[str, int],
        frame: pl.DataFrame,
        rank_share: float | None,
    ) -> None:
        """Count a day's candidate rows; `rank_share` of its rerank rows have a valid rank."""
        self.days[day] = Counter(counts)
        self._split_of[day] = split
        self._rank_share[day] = rank_share
        sizes = frame.group_by("q").len()["len"].to_numpy()
        self._sizes[split] += np.bincount(sizes, minlength=len(self._sizes[split]))

    def require_all(self, path: Path, label: str) -> None:
        """Refuse a split that cannot train or measure anything.

        Raises:
          ValueError: a split without a usable request, or whose requests have no positive.
        """
        for split in SPLITS:
            total = self._total(split)
            if not self.requests[split] or not total["positives"]:
                days = {d: dict(c) for d, c in self.days.items() if self._split_of[d] == split}
                raise ValueError(
                    f"{path}: no usable request for {split}: {_cause(total, label)}. By day: {days}"
                )

    def report(self, learned: Learned) -> dict[str, Any]:
        """Return everything as JSON-able numbers."""
        splits = {split: self._split(split) for split in SPLITS}
        return {
            "splits": splits,
            "by_day": {d: {"split": self._split_of[d], **c} for d, c in self.days.items()},
            "rank_base": learned.ranks.base,
            "rank_valid_fraction": learned.ranks.valid,
            "rank_valid_by_day": self._rank_share,
            "score": learned.ranks.score,
            "vocabulary_sizes": fit.sizes(learned.vocabularies),
        }

    def _total(self, split: str) -> Counter[str]:
        total: Counter[str] = Counter()
        for day, counts in self.days.items():
            if self._split_of[day] == split:
                total.update(counts)
        return total

    def _split(self, split: str) -> dict[str, Any]:
        total = self._total(split)
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


def _cause(total: Counter[str], label: str) -> str:
    """Say why a split has no usable request, and what would help."""
    if not total["rows"]:
        return "no row of the kept users carries a stage flag: use a larger user_share"
    if not total["positives"]:
        views = total["effective_views"]
        return f"label {label!r} is above 0.5 on no shown row, with {views} effective views: " + (
            "choose another label" if views else "check the feedback columns of the files"
        )
    return "none has a judged positive beside a judged other: use more days or a larger user_share"


def check_day(counts: dict[str, int], file: Path) -> None:
    """Refuse a day that lost most of its rows.

    Raises:
      ValueError: too many rows without a request or a video id.
    """
    lost, read = counts["rows_without_ids"], counts["rows"]
    if lost > MOST_LOST * read:
        raise ValueError(
            f"{file}: {lost} of {read} candidate rows have a negative or missing request_id or "
            "video_id: fix the file or leave the day out"
        )


def findings(learned: Learned) -> list[str]:
    """Say in words how the rank columns are read."""
    found = learned.ranks.valid.items()  # None for a flag that no row carries
    shares = ", ".join(f"{flag} {share:.0%}" for flag, share in found if share is not None)
    return [f"rank_index starts at {learned.ranks.base['rank_index']}; valid: {shares}"]


def warnings(report: dict[str, Any], learned: Learned, settings: RecFlowSettings) -> list[str]:
    """Say in words what a user should know before trusting the numbers."""
    said = files.absent(report)
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
    said += _about_days(report["by_day"], report["rank_valid_by_day"])
    for split, counts in report["splits"].items():
        if counts["rows_of_another_day"]:
            said.append(
                f"{split}: {counts['rows_of_another_day']} rows have times outside their file's "
                "day (UTC+8)"
            )
        if 2 * counts["positives"] < counts["effective_views"]:
            said.append(
                f"{split}: label {settings.label!r} is above 0.5 on {counts['positives']} rows "
                f"only, of {counts['effective_views']} effective views"
            )
    return said


def _about_days(days: dict[str, dict[str, Any]], ranks: dict[str, float | None]) -> list[str]:
    said = []
    first = next((share for share in ranks.values() if share is not None), None)
    for day, counts in days.items():
        lost, share = counts["rows_without_ids"], ranks[day]
        if lost > WORTH_SAYING * counts["rows"]:
            said.append(f"{day}: {lost} of {counts['rows']} rows dropped for lack of an id")
        if share is not None and first is not None and share < first - FEWER_RANKS:
            said.append(
                f"{day}: rank_index is valid in {share:.0%} of rerank rows, not {first:.0%}"
            )
    return said
