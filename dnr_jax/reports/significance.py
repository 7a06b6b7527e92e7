"""Paired tests over requests: does one model rank better than another on the same requests?

The star of a table stands for: better than the best other row, significant at 0.05 by a two-sided
paired permutation test that flips the sign of each request's difference (`permutation_test`),
after Holm's correction over the rows of the table. Requests are taken as independent, and the
models as given: the spread over training seeds is not in it and stands beside it as a standard
deviation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dnr_jax.evaluation import bootstrap
from dnr_jax.evaluation.bootstrap import BOOTSTRAPS, LEVEL, portions

STAR_MEANING = (
    "* better than the best other row, p < 0.05: two-sided paired sign-flip permutation test over "
    "requests, values averaged over seeds, Holm-corrected over the rows."
)
PERMUTATIONS = 9999


class Comparison(NamedTuple):
    """One row against the best other row.

    Attributes:
      best_other: the row with the highest mean among the others.
      difference: mean of (this row - best other) over the requests both have.
      low, high: percentile bootstrap interval of the difference, 95 %.
      p: of the paired sign-flip permutation test, two-sided.
      p_holm: `p` corrected for all rows of the table.
    """

    best_other: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float


def compare(values: dict[str, np.ndarray], *, seed: int) -> dict[str, Comparison]:
    """Compare each row with the best other row.

    Two rows may be each other's best other; both tests stay in Holm's family, which makes it a
    little too careful, never too bold.

    Args:
      values: metric per request, float `[R]`, by row, averaged over seeds; NaN = excluded.
      seed: of the random draws, which all rows share.

    Raises:
      ValueError: fewer than two rows, arrays of different length, or a row without a value
        or without a request that its best other has.
    """
    table = _check(values)
    means = {name: float(np.nanmean(row)) for name, row in table.items()}
    best = {name: max((o for o in table if o != name), key=means.__getitem__) for name in table}
    differences = np.stack([_difference(table, name, best[name]) for name in table], axis=1)
    low, high = bootstrap.intervals(differences, seed=seed, resamples=BOOTSTRAPS, level=LEVEL)
    p = _sign_flip_p(differences, seed=seed, resamples=PERMUTATIONS)
    columns = zip(table, _means(differences), low, high, p, holm(p), strict=True)
    return {name: Comparison(best[name], *map(float, numbers)) for name, *numbers in columns}


def paired_bootstrap(
    a: np.ndarray,
    b: np.ndarray,
    *,
    seed: int,
    resamples: int = BOOTSTRAPS,
    level: float = LEVEL,
) -> tuple[float, float, float]:
    """Return the mean of `a - b` and its percentile bootstrap interval (Efron 1979) over requests.

    Args:
      a: float `[R]`; a request with a NaN in either array is left out.
      b: float `[R]`, the same requests.
      seed: of the resampling.
      resamples: number of bootstrap samples.
      level: coverage of the interval, in (0, 1).

    Raises:
      ValueError: different lengths, or no request that both have.
    """
    difference = _pair(a, b)
    low, high = bootstrap.intervals(difference, seed=seed, resamples=resamples, level=level)
    return float(_means(difference)[0]), float(low[0]), float(high[0])


def permutation_test(
    a: np.ndarray, b: np.ndarray, *, seed: int, resamples: int = PERMUTATIONS
) -> float:
    """Test mean(a - b) = 0 by flipping signs (Fisher 1935): two-sided p, at least 1/(resamples+1).

    Args:
      a: float `[R]`; a request with a NaN in either array is left out.
      b: float `[R]`, the same requests.
      seed: of the flips.
      resamples: number of random sign patterns.

    Raises:
      ValueError: different lengths, or no request that both have.
    """
    return float(_sign_flip_p(_pair(a, b), seed=seed, resamples=resamples)[0])


def holm(p_values: np.ndarray) -> np.ndarray:
    """Correct p-values for their number (Holm 1979): float64 `[M]`, in the order given."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def _check(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    table = {name: np.asarray(row, np.float64) for name, row in values.items()}
    if len(table) < 2:
        raise ValueError(f"got {len(table)} row(s) {list(table)}: a comparison needs two or more")
    lengths = {name: row.shape for name, row in table.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"rows hold different requests: {lengths}; evaluate all on one split")
    empty = [name for name, row in table.items() if np.isnan(row).all()]
    if empty:
        raise ValueError(f"no value at all for row(s) {empty}: every request was excluded")
    return table


def _pair(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _difference(_check({"a": a, "b": b}), "a", "b")[:, None]


def _difference(table: dict[str, np.ndarray], name: str, other: str) -> np.ndarray:
    difference = table[name] - table[other]
    if np.isnan(difference).all():
        raise ValueError(
            f"rows {name!r} and {other!r} share no request: evaluate both on one split"
        )
    return np.asarray(difference)


def _means(differences: np.ndarray) -> np.ndarray:
    return np.asarray(np.nanmean(differences, axis=0))


def _sign_flip_p(differences: np.ndarray, *, seed: int, resamples: int) -> np.ndarray:
    """Return two-sided p-values, `[M]`, for the columns of `differences [R, M]`.

    All columns share the sign patterns. The observed pattern counts as one of them.
    """
    generator = np.random.default_rng([seed, 1])
    requests = len(differences)
    filled = np.nan_to_num(differences).astype(np.float32)
    # Sums of the same terms in another order must count as equal.
    threshold = np.abs(filled.sum(axis=0)) - 1e-6 * np.abs(filled).sum(axis=0)
    extreme = np.ones(differences.shape[1])
    for portion in portions(resamples, requests):
        bits = np.frombuffer(generator.bytes(portion * (-(-requests // 8))), np.uint8)
        flips = np.unpackbits(bits.reshape(portion, -1), axis=1)[:, :requests]
        signs = flips.astype(np.float32) * 2 - 1
        extreme += (np.abs(signs @ filled) >= threshold).sum(axis=0)
    return extreme / (resamples + 1)
