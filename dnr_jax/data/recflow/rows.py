"""From the rows of one day to candidate sets: filter, merge duplicates, label, choose, score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from dnr_jax.data.hashing import mix
from dnr_jax.data.recflow import files, scores
from dnr_jax.data.recflow.columns import number
from dnr_jax.data.recflow.settings import (
    GRADED,
    RecFlowSettings,
    label_weights,
    unexposed_weight,
)

PAIR = ["request_id", "video_id"]
FEWEST_RANKS = 0.5  # share of rerank rows with a rank, below which ranks are of no use
STAGES = 8  # at most, of which a row has one
SECONDS_LIMIT = 10**11  # a larger time cannot be in seconds, nor a smaller one (1973) in ms


class Ranks(NamedTuple):
    """How to read the rank columns, found on the first train day.

    Attributes:
      base: base of `rank_index` and `rerank_index`, None = unusable.
      valid: share of rows with a valid rank by stage flag.
      score: the formula in use (the tiers where too few ranks are valid).
      table: calibration table or None.
    """

    base: dict[str, int | None]
    valid: dict[str, float | None]
    score: str
    table: np.ndarray | None = None


def seconds(column: str) -> pl.Expr:
    """Epoch seconds of a time that may be in milliseconds."""
    time = pl.col(column)
    return pl.when(time > SECONDS_LIMIT).then(time // 1000).otherwise(time)


def read(day: files.Day, names: Sequence[str], settings: RecFlowSettings) -> pl.DataFrame:
    """Read one day's candidate rows of the kept users, typed as `columns.number` says."""
    frame = files.scan(day.rows).select(number(name) for name in names)
    if settings.one_user_in > 1:
        frame = frame.filter(pl.col("user_id") % settings.one_user_in == 0)
    return files.collect(frame.filter(pl.any_horizontal(settings.flags)), day.rows)


def probe(frame: pl.DataFrame, score: str) -> Ranks:
    """Find the rank columns' base and how many ranks are valid; fall back to stage tiers.

    The fallback (ranks of fewer than half of the rerank rows are valid) is stated in the report.
    """
    base = {index: scores.probe_base(frame, index) for index in files.INDICES}
    valid = scores.valid_fraction(frame, base["rank_index"])
    share = _valid_share(frame, base["rank_index"])
    return Ranks(base, valid, score if share is not None and share >= FEWEST_RANKS else "tier")


def _valid_share(frame: pl.DataFrame, base: int | None) -> float | None:
    """Return the share of rerank rows that have a rank; None where there are no such rows."""
    entered = pl.col("rerank_pos") | pl.col("rerank_neg")
    valid = scores.valid_rank("rank_index", base).is_not_null()
    return frame.select(valid.filter(entered).mean()).item()


def check_ranks(frame: pl.DataFrame, ranks: Ranks, file: Path) -> float | None:
    """Compare the ranks of a day with what `probe` found on the first train day.

    Returns the share of rerank rows that have a rank; None where there are no such rows.

    Raises:
      ValueError: ranks count from another number, or fewer than half of the rows have one, so
        that scores would mean something else on this day.
    """
    base = ranks.base["rank_index"]
    share = _valid_share(frame, base)
    if ranks.score == "tier" or share is None:
        return share
    own = scores.probe_base(frame, "rank_index")
    if own is not None and own != base:
        raise ValueError(
            f"{file}: rank_index counts from {own}, but from {base} on the first train day: bring "
            "the files to one form, or keep days of one form by data.days"
        )
    if share < FEWEST_RANKS:
        raise ValueError(
            f"{file}: rank_index is valid in {share:.0%} of the rerank rows only, unlike on the "
            "first train day: fix the file, leave the day out, or set data.score to tier"
        )
    return share


def merge_duplicates(frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Merge rows of equal request and video: OR of flags, least rank, first of the rest.

    Returns the frame, in some order, and how many rows went away.
    """
    keys = np.sort(mix(0, 0, *(frame[name].to_numpy() for name in PAIR)))
    if (keys[1:] != keys[:-1]).all():  # equal pairs have equal keys
        return frame, 0
    frame, kinds = frame.sort(PAIR, maintain_order=True), frame.schema
    merged = frame.group_by(PAIR, maintain_order=True).agg(
        pl.col(name).max()
        if kinds[name] == pl.Boolean
        else pl.col(name).min()
        if name in ("rank", "shown_rank")
        else pl.col(name).first()
        for name in frame.columns
        if name not in PAIR
    )
    return merged, len(frame) - len(merged)


def label(name: str) -> pl.Expr:
    """Label of a row in [0, 1] from its feedback; `settings.label_weights` says how."""
    if name == GRADED:
        acted = pl.any_horizontal("like", "follow", "forward", "comment")
        viewed = pl.when("long_view").then(0.8).when("effective_view").then(0.6).otherwise(0.0)
        return pl.when(acted).then(1.0).otherwise(viewed).cast(pl.Float32)
    weights = label_weights(name)
    parts = [pl.col(column).cast(pl.Float64) * weight for column, weight in weights.items()]
    return (pl.sum_horizontal(parts) / sum(weights.values())).cast(pl.Float32)


def candidates(
    frame: pl.DataFrame,
    ranks: Ranks,
    settings: RecFlowSettings,
    *,
    size: int,
    seed: int,
    train: bool,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Build the day's candidate sets, one row a candidate, in final (seeded random) order.

    Adds `rank`, `shown_rank` (null = unknown), `label`, `positives` of the whole request, `score`,
    `weight`, `q` (number of the request in the day) and `slot` (number of the candidate).
    Requests without a shown row are dropped, in training also those without a judged positive and
    a judged non-positive; elsewhere requests without a positive stay, for metrics to count.
    """
    read_rows = len(frame)
    frame = frame.filter(pl.min_horizontal("request_id", "video_id") >= 0).with_columns(
        rank=scores.valid_rank("rank_index", ranks.base["rank_index"]),
        shown_rank=scores.valid_rank("rerank_index", ranks.base["rerank_index"]),
    )
    without_ids = read_rows - len(frame)
    frame, duplicates = merge_duplicates(frame)
    requests = frame["request_id"].n_unique()
    frame = _describe(frame, settings, seed)
    shown = frame.filter(pl.col("realshow").any().over("request_id"))
    chosen = _choose(shown, size)
    kept = chosen.filter(_eligible()) if train else chosen
    counts = {
        "rows": read_rows,
        "rows_without_ids": without_ids,
        "duplicates_merged": duplicates,
        "requests": requests,
        "requests_without_shown_row": requests - shown["request_id"].n_unique(),
        "requests_not_trainable": chosen["request_id"].n_unique() - kept["request_id"].n_unique(),
        "shown_rows_beyond_size": int(shown["realshow"].sum()) - int(chosen["realshow"].sum()),
        "requests_kept": kept["request_id"].n_unique(),
        "positives": int((kept["label"] > 0.5).sum()),
        "shown_rows": int(kept["realshow"].sum()),
        "effective_views": int(kept["effective_view"].sum()),
    }
    return _score(kept, ranks, settings, seed), counts


def _describe(frame: pl.DataFrame, settings: RecFlowSettings, seed: int) -> pl.DataFrame:
    """Add label, weight, and the order of choice with its draw."""
    priority = pl.coalesce(
        pl.when(flag).then(pl.lit(n, pl.Int8)) for n, flag in enumerate(settings.flags)
    )
    weight = unexposed_weight(settings.unexposed)
    return frame.with_columns(
        _draw(frame, seed, 0),
        label=label(settings.label),
        weight=pl.when("realshow").then(1.0).otherwise(weight).cast(pl.Float32),
        priority=priority,
    ).with_columns(positives=(pl.col("label") > 0.5).sum().over("request_id").cast(pl.Int32))


def _draw(frame: pl.DataFrame, seed: int, number: int) -> pl.Series:
    """Draw `draw0`, `draw1` or `draw2`, independent of each other: uint64 a row."""
    return pl.Series(f"draw{number}", mix(seed, number, *(frame[name].to_numpy() for name in PAIR)))


def _choose(frame: pl.DataFrame, size: int) -> pl.DataFrame:
    """Keep the first N of each request: by stage, shown rows by place, the others at random."""
    q = frame["request_id"].rank("dense").to_numpy().astype(np.int64) - 1
    order = np.argsort(_turns(frame, q))
    starts = np.concatenate([[0], np.cumsum(np.bincount(q))])
    first = np.zeros(len(frame), bool)
    first[order[np.arange(len(frame)) - starts[q[order]] < size]] = True
    return frame.filter(first)


def _turns(frame: pl.DataFrame, q: np.ndarray) -> np.ndarray:
    """Number the rows by request, stage, place if shown, and draw: one whole key sorts fastest.

    It fits int64 for a day of 8 million requests and 250 million rows.
    """
    last = scores.RANKED + 1  # comes after every place
    place = pl.when("realshow").then(pl.col("shown_rank")).fill_null(last)
    key = pl.col("priority").cast(pl.Int64) * (last + 1) + place.cast(pl.Int64)
    turn = frame.select(key.alias("turn"))["turn"].to_numpy()
    draw = np.empty(len(frame), np.int64)  # its place among all: a row's own
    draw[np.argsort(frame["draw0"].to_numpy())] = np.arange(len(frame))
    return (q * (STAGES * (last + 1)) + turn) * len(frame) + draw


def _eligible() -> pl.Expr:
    judged, positive = pl.col("weight") > 0, pl.col("label") > 0.5
    both = (judged & positive).any() & (judged & ~positive).any()
    return both.over("request_id")


def _score(frame: pl.DataFrame, ranks: Ranks, settings: RecFlowSettings, seed: int) -> pl.DataFrame:
    """Order the candidates of each request at random, number them, and score them."""
    frame = frame.with_columns(_draw(frame, seed, n) for n in (1, 2))
    frame = frame.sort("request_id", "draw1").with_columns(
        q=pl.col("request_id").rle_id().cast(pl.Int64),
        slot=pl.int_range(pl.len()).over("request_id"),
    )
    uniform = (pl.col("draw2") // 2**11).cast(pl.Float64) / 2.0**53
    drawn = scores.tier_rank(uniform, jitter=settings.jitter)
    known = pl.lit(None, pl.Float64) if ranks.score == "tier" else pl.col("rank")
    r = frame.select(pl.coalesce(known, drawn).alias("r"))["r"].to_numpy()
    x = scores.score(
        ranks.score, r, request=frame["q"].to_numpy(), tau=settings.tau, table=ranks.table
    )
    return frame.with_columns(score=pl.Series(x, dtype=pl.Float32))
