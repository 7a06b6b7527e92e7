"""Percentile bootstrap intervals (Efron 1979) of means over requests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BOOTSTRAPS = 2000
LEVEL = 0.95
_CELLS = 2**22  # random numbers drawn at a time


def portions(resamples: int, requests: int) -> Iterator[int]:
    """Split a number of resamples into portions that each draw about `_CELLS` numbers."""
    size = max(1, _CELLS // max(requests, 1))
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def intervals(
    values: np.ndarray, *, seed: int, resamples: int = BOOTSTRAPS, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper ends, `[M]`, of the intervals of each column's mean over requests.

    Args:
      values: float `[R, M]`, NaN where a request has none.
      seed: seed of the resampling, which all columns share.
      resamples: number of bootstrap samples.
      level: coverage, in (0, 1).
    """
    generator = np.random.default_rng([seed, 0])
    requests = len(values)
    real = (~np.isnan(values)).astype(np.float64)
    filled = np.nan_to_num(values)
    means = []
    for portion in portions(resamples, requests):
        drawn = generator.integers(requests, size=(portion, requests), dtype=np.int32)
        counts = np.stack([np.bincount(row, minlength=requests) for row in drawn]).astype(float)
        with np.errstate(invalid="ignore"):  # a resample may have no request for a column
            means.append((counts @ filled) / (counts @ real))
    tail = (1 - level) / 2
    low, high = np.nanquantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return low, high
