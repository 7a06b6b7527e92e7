"""First-stage scores from the logged rank: RecFlow publishes places, not scores.

Every x here is an ordinal proxy in [0, 1] of what the ranking stage thought, 1 = its first place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import isotonic_regression

RANKED = 500  # items that reach the ranking stage
FUNNEL = 8000  # items that are retrieved
# A row without a rank gets its stage's: the flags that say so, middle rank, first and last rank.
TIERS: tuple[tuple[tuple[str, ...], int, int, int], ...] = (
    (("rank_pos",), 5, 1, 10),
    (("rerank_pos", "rerank_neg", "realshow"), 65, 11, 120),
    (("rank_neg",), 310, 121, 500),
    (("coarse_neg",), 1750, 501, 3000),
    (("prerank_neg",), 5500, 3001, 8000),
)
REACHED = {
    "rank_index": ("rank_pos", "rank_neg", "rerank_pos", "rerank_neg", "realshow"),
    "rerank_index": ("rerank_pos", "rerank_neg", "realshow"),
}
BASE_FLAG = {"rank_index": "rank_pos", "rerank_index": "rerank_pos"}


def probe_base(frame: pl.DataFrame, index: str) -> int | None:
    """Find whether `index` counts from 0 or from 1: its least value >= 0 at the stage's top rows.

    A 0 there may also be the sentinel of a row without a rank. Top rows hold the first ten
    places, and a 10 among them is seen only when counting from 1.

    Returns None where no such row holds a 0 or a 1.
    """
    raw = frame.select(pl.col(index).filter(BASE_FLAG[index])).to_series()
    zeros, ones, tens = ((raw == value).sum() for value in (0, 1, 10))
    if zeros > 10 * tens:
        return 0
    return 1 if ones else None


def valid_rank(index: str, base: int | None) -> pl.Expr:
    """Rank counted from 1; null where the row never reached the stage or the index is a sentinel.

    Args:
      index: "rank_index" or "rerank_index"; a float64 column, null where it was NaN.
      base: what `probe_base` found; None makes every rank missing.
    """
    if base is None:
        return pl.lit(None, pl.Float64)
    rank = pl.col(index) - base + 1
    reached = pl.any_horizontal(REACHED[index])
    return pl.when(reached & rank.is_between(1, RANKED)).then(rank)


def valid_fraction(frame: pl.DataFrame, base: int | None) -> dict[str, float | None]:
    """Share of rows with a valid rank, by stage flag; None where no row carries the flag."""
    frame = frame.with_columns(valid=valid_rank("rank_index", base).is_not_null())
    flags = [flag for names, *_ in TIERS for flag in names]
    return frame.select(pl.col("valid").filter(flag).mean().alias(flag) for flag in flags).row(
        0, named=True
    )


def tier_rank(uniform: pl.Expr, *, jitter: bool) -> pl.Expr:
    """Rank of a row that has none: its stage's middle rank, or uniform over its stage's ranks.

    Args:
      uniform: a float64 expression in [0, 1).
      jitter: draw from the stage's ranks, so that rows of a stage do not tie.
    """
    ranks = pl.lit(FUNNEL, pl.Float64)
    for flags, middle, first, last in reversed(TIERS):
        drawn = first + uniform * (last - first) if jitter else pl.lit(middle, pl.Float64)
        ranks = pl.when(pl.any_horizontal(flags)).then(drawn).otherwise(ranks)
    return ranks


def log_rank(r: np.ndarray) -> np.ndarray:
    """Compute `1 - ln r / ln 8001`: spreads the whole funnel over [0, 1]."""
    return np.asarray(1 - np.log(r) / np.log(FUNNEL + 1))


def linear(r: np.ndarray) -> np.ndarray:
    """Compute `1 - (r - 1) / 499`, 0 beyond the ranking stage."""
    return np.clip(1 - (r - 1) / (RANKED - 1), 0, 1)


def dcg(r: np.ndarray) -> np.ndarray:
    """Compute `1 / log2(1 + r)`."""
    return np.asarray(1 / np.log2(1 + r))


def exponential(r: np.ndarray, tau: float) -> np.ndarray:
    """Compute `exp(-(r - 1) / tau)`."""
    return np.exp(-(r - 1) / tau)


def quantile(r: np.ndarray, request: np.ndarray) -> np.ndarray:
    """Compute `1 - (j - 1/2) / n`, j the place of r among the n candidates of its request.

    Ties share their mean place. The law of the scores is then the same in every request.
    """
    place, count = pl.col("r").rank("average").over("q"), pl.len().over("q")
    frame = pl.DataFrame({"r": r, "q": request})
    return frame.select(x=1 - (place - 0.5) / count)["x"].to_numpy()


def calibrate(shown: np.ndarray, viewed: np.ndarray) -> np.ndarray:
    """Fit P(effective view | r) on shown rows, never rising in r, as a table over r = 1..8001.

    Weighted isotonic regression, smoothed over ln r (a positive kernel keeps it monotone) and
    divided by its maximum. Beyond the ranking stage it goes on in proportion to `log_rank`.

    Args:
      shown: count of shown rows `[500]` by r - 1.
      viewed: how many of them were effectively viewed.

    Raises:
      ValueError: no shown row has a valid rank or none was viewed.
    """
    if not viewed.sum():
        raise ValueError(
            "score='calibrated' needs shown train rows with a valid rank_index and an effective "
            "view, found none: choose score='log_rank'"
        )
    seen = np.flatnonzero(shown)
    fit = isotonic_regression(viewed[seen] / shown[seen], weights=shown[seen], increasing=False)
    ranks = np.arange(1, RANKED + 1)
    grid = np.linspace(0, np.log(RANKED), 256)
    smooth = gaussian_filter1d(np.interp(grid, np.log(seen + 1), fit.x), 8, mode="nearest")
    head = np.interp(np.log(ranks), grid, smooth)
    beyond = np.arange(RANKED + 1, FUNNEL + 2)
    tail = head[-1] * log_rank(beyond) / log_rank(np.asarray(RANKED))
    table = np.concatenate([head, tail])
    return np.asarray(table / table.max())


FORMULAS: Mapping[str, Callable[..., np.ndarray]] = {
    "log_rank": lambda r, **_: log_rank(r),
    "linear": lambda r, **_: linear(r),
    "dcg": lambda r, **_: dcg(r),
    "exp": lambda r, *, tau, **_: exponential(r, tau),
    "quantile": lambda r, *, request, **_: quantile(r, request),
    "calibrated": lambda r, *, table, **_: np.interp(r, np.arange(1, len(table) + 1), table),
    "tier": lambda r, **_: log_rank(r),
}


def score(
    name: str,
    r: np.ndarray,
    *,
    request: np.ndarray,
    tau: float,
    table: np.ndarray | None,
) -> np.ndarray:
    """Map ranks to scores x in [0, 1] by the formula called `name`.

    Args:
      name: a key of `FORMULAS`; "tier" expects ranks that `tier_rank` made for every row.
      r: `float64 [rows]`, ranks from 1.
      request: `int [rows]`, request of each row (for "quantile").
      tau: decay of "exp", in ranks.
      table: `calibrate`'s table (for "calibrated").
    """
    arguments: dict[str, Any] = {"request": request, "tau": tau, "table": table}
    return np.asarray(np.clip(FORMULAS[name](r, **arguments), 0, 1), np.float32)
