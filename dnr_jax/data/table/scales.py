"""Numbers of any size -> numbers about 1: by quantiles of the training rows, by log, or mean.

A missing number is 0, the middle, and told apart from it by a column of its own, which there is
where training has missing ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from dnr_jax.data.table.columns import Typed
from dnr_jax.data.table.reader import collect
from dnr_jax.data.table.schema import Feature

SHARES = np.linspace(0, 1, 65)  # of the knots
COLUMNS_AT_ONCE = 8  # in memory, while their quantiles are found
DIGITS = 9  # of what is stored: those that tell float32 apart


class Scale(NamedTuple):
    """How the numbers of a column are scaled.

    Attributes:
      knots, shares: `float64 [k]`: a number lies at 2 F - 1, F interpolated between the knots: the
        share of training rows below each, or its place on a log scale; () for a vector.
      mean, spread: `float64 [width]`: a vector has them subtracted and divided by; () for a number.
      missing: whether a column says where the value is missing.
    """

    knots: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    missing: bool = False

    @property
    def width(self) -> int:
        """Columns that it takes."""
        return max(1, len(self.mean)) + self.missing

    def scale(self, raw: pl.Series) -> pl.Series:
        """Scale numbers to float32 in [-1, 1]; nulls stay, and vectors, for `stack`."""
        if self.mean:
            return raw
        values = raw.cast(pl.Float64)
        found = 2 * np.interp(values.fill_null(0).to_numpy(), self.knots, self.shares) - 1
        scaled = pl.Series(raw.name, found.astype(np.float32))
        return scaled.set(values.is_null(), None)

    def stack(self, scaled: pl.Series) -> np.ndarray:
        """Make columns `float32 [n, width]` of what `scale` returns."""
        gone = scaled.is_null().to_numpy()[:, None].astype(np.float32)
        if self.mean:
            flat = scaled.drop_nulls().explode().to_numpy().reshape(-1, len(self.mean))
            values = np.zeros((len(scaled), len(self.mean)), np.float32)
            values[gone[:, 0] == 0] = (flat - np.array(self.mean)) / np.array(self.spread)
        else:
            values = scaled.fill_null(0).to_numpy().astype(np.float32)[:, None]
        return np.concatenate([values, gone], axis=1) if self.missing else values


Scales = Mapping[str, Scale]


def fit(table: Typed, frame: pl.LazyFrame, features: Iterable[Feature]) -> dict[str, Scale]:
    """Find the scales of numeric and vector features from training rows, some columns at a time."""
    logs = {f.name: f.log for f in features if f.kind in ("numeric", "vector")}
    names, found = list(logs), dict[str, Scale]()
    for start in range(0, len(names), COLUMNS_AT_ONCE):
        some = names[start : start + COLUMNS_AT_ONCE]
        values = collect(frame.select(some), table.source.files)
        found |= {name: _fitted(values[name], log=logs[name]) for name in some}
    return found


def _fitted(values: pl.Series, *, log: bool = False) -> Scale:
    missing = values.null_count() > 0
    if isinstance(values.dtype, pl.List):
        return _standard(values.drop_nulls(), missing)
    known = np.sort(values.drop_nulls().to_numpy())
    if not len(known):
        return Scale(knots=(0.0,), shares=(0.5,), missing=missing)
    if log:
        return _logarithmic(known[0], known[-1], missing)
    knots = np.unique(_rounded(np.quantile(known, SHARES)))
    # Where values tie, F is the middle of the share of rows from below them to above them.
    below, above = (np.searchsorted(known, knots, side) for side in ("left", "right"))
    shares = (below + above) / (2 * len(known))
    return Scale(tuple(knots.tolist()), tuple(_rounded(shares).tolist()), missing=missing)


def _logarithmic(low: float, high: float, missing: bool) -> Scale:
    """Place numbers by sign(x) log(1 + |x|), from -1 at the least of training to 1 at the greatest.

    Between the knots, which are equally far from each other on that scale, it is linear.
    """
    ends = [np.sign(end) * np.log1p(abs(end)) for end in (low, high)]
    places = np.linspace(ends[0], ends[1], len(SHARES))
    knots = _rounded(np.sign(places) * np.expm1(np.abs(places)))
    if not (np.diff(knots) > 0).all():  # too close to each other to be told apart
        return Scale(knots=(float(low),), shares=(0.5,), missing=missing)
    return Scale(tuple(knots.tolist()), tuple(SHARES.tolist()), missing=missing)


def _standard(values: pl.Series, missing: bool) -> Scale:
    width = int(values.list.len().to_numpy().max(initial=1))
    flat = values.explode().to_numpy().astype(np.float64).reshape(-1, width)
    if not len(flat):
        return Scale(mean=(0.0,), spread=(1.0,), missing=missing)
    spread = flat.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    means = _rounded(flat.mean(axis=0))
    return Scale(
        mean=tuple(means.tolist()), spread=tuple(_rounded(spread).tolist()), missing=missing
    )


def _rounded(values: np.ndarray) -> np.ndarray:
    """Keep `DIGITS` digits, so that what is stored as text is what was used."""
    return np.array([float(f"{value:.{DIGITS}g}") for value in values])


def stack(frame: pl.DataFrame, scales: Scales) -> np.ndarray | None:
    """Make the columns of several features, scaled by `Scale.scale`: `float32 [n, columns]`."""
    if not scales:
        return None
    return np.concatenate([scale.stack(frame[name]) for name, scale in scales.items()], axis=1)


def scaled(scales: Scales) -> list[pl.Expr]:
    """Return expressions that put scaled numbers in the place of raw ones."""
    return [
        pl.col(name).map_batches(scale.scale, return_dtype=pl.Float32, is_elementwise=True)
        for name, scale in scales.items()
        if not scale.mean
    ]


def names(scales: Scales) -> tuple[str, ...]:
    """Name the columns of `stack`."""
    return tuple(
        name if place < scale.width - scale.missing else f"{name} is missing"
        for name, scale in scales.items()
        for place in range(scale.width)
    )


def plain(scales: Scales) -> dict[str, Any]:
    """Return scales as JSON-able plain data."""
    return {name: scale._asdict() for name, scale in scales.items()}


def read(content: Mapping[str, Any]) -> dict[str, Scale]:
    """Return the scales that `plain` wrote."""
    found = {}
    for name, one in content.items():
        lists = {field: tuple(one[field]) for field in Scale._fields[:-1]}
        found[name] = Scale(**lists, missing=bool(one["missing"]))
    return found
