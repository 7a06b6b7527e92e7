"""Scale numbers to about 1: by quantiles of the training rows, by log, or by mean and spread.

A missing number is scaled to 0, the middle. If any number is missing in training, a separate
column marks missing ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from dnr_jax.data.table.columns import Typed
from dnr_jax.data.table.reader import collect
from dnr_jax.data.table.schema import Feature

SHARES = np.linspace(0, 1, 65)  # at the knots
COLUMNS_AT_ONCE = 8  # in memory while their quantiles are computed
DIGITS = 9  # stored digits: enough to keep every float32 distinct


class Scale(NamedTuple):
    """How the numbers of a column are scaled.

    Attributes:
      knots, shares: `float64 [k]`: a number becomes 2 F - 1, with F interpolated between the knots:
        the share of training rows below each, or its place on a log scale; () for a vector.
      mean, spread: `float64 [width]`: a vector v becomes (v - mean) / spread; () for a number.
      missing: whether a column marks missing values.
    """

    knots: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    missing: bool = False

    @property
    def width(self) -> int:
        """Number of columns of the scaled feature."""
        return max(1, len(self.mean)) + self.missing

    def scale(self, raw: pl.Series) -> pl.Series:
        """Scale numbers to float32 in [-1, 1]; nulls and vectors are left for `stack`."""
        if self.mean:
            return raw
        values = raw.cast(pl.Float64)
        found = 2 * np.interp(values.fill_null(0).to_numpy(), self.knots, self.shares) - 1
        scaled = pl.Series(raw.name, found.astype(np.float32))
        return scaled.set(values.is_null(), None)

    def stack(self, scaled: pl.Series) -> np.ndarray:
        """Make columns `float32 [n, width]` from the output of `scale`."""
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
    # For tied values, F is the mean of the shares of rows below them and up to them.
    below, above = (np.searchsorted(known, knots, side) for side in ("left", "right"))
    shares = (below + above) / (2 * len(known))
    return Scale(tuple(knots.tolist()), tuple(_rounded(shares).tolist()), missing=missing)


def _logarithmic(low: float, high: float, missing: bool) -> Scale:
    """Place numbers by sign(x) log(1 + |x|), from -1 at the training minimum to 1 at the maximum.

    It is linear between the knots, which are equally spaced on that scale.
    """
    ends = [np.sign(end) * np.log1p(abs(end)) for end in (low, high)]
    places = np.linspace(ends[0], ends[1], len(SHARES))
    knots = _rounded(np.sign(places) * np.expm1(np.abs(places)))
    if not (np.diff(knots) > 0).all():  # too close to be distinct
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
    """Keep `DIGITS` digits, so the stored text gives exactly the values that were used."""
    return np.array([float(f"{value:.{DIGITS}g}") for value in values])


def stack(frame: pl.DataFrame, scales: Scales) -> np.ndarray | None:
    """Make the columns of several features, scaled by `Scale.scale`: `float32 [n, columns]`."""
    if not scales:
        return None
    return np.concatenate([scale.stack(frame[name]) for name, scale in scales.items()], axis=1)


def scaled(scales: Scales) -> list[pl.Expr]:
    """Return expressions that replace raw numbers by scaled ones."""
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
