"""Does one model rank better than another, for other requests and other seeds?

Both the test requests and the training seeds are samples. With values y[s, r] of seed s on request
r, a row's mean varies with both, and the difference D of two rows' means has the variance

    V = V_requests + V_a + V_b
      V_requests = Var_r[mean_s y_a - mean_s y_b] / R   (paired: both rows answer each request)
      V_a        = Var_s[mean_r y_a] / S_a              (unpaired: seed 0 of two rows is two draws)

D / sqrt(V) is compared with Student's t, degrees of freedom by Satterthwaite (1946, Biometrics
Bulletin 2, 110). The noise of a single seed on a single request is in V_requests and in V_a, so V
is a little too large and intervals cover at least their nominal level. A row that learns nothing
has no V_a. For a learned row of one seed V_a cannot be known; it is left out, and the comparison
says so (`seeds_known`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

from dnr_jax.evaluation.bootstrap import LEVEL

STAR_MEANING = (
    "* better than the best other row, p < 0.05: two-sided t-test of the difference of the rows' "
    "means whose variance is that over requests (paired) plus that over the seeds of both rows, "
    "Holm-corrected over the rows."
)


class Row(NamedTuple):
    """A row's values.

    Attributes:
      values: metric by seed and request, float `[S, R]`.
      learned: whether another seed would change them.
    """

    values: np.ndarray
    learned: bool = True


class Difference(NamedTuple):
    """One row minus another.

    Attributes:
      mean: of (this row - the other).
      low, high: interval of the difference over requests and seeds.
      p: p-value of no difference, two-sided.
      seeds_known: False if a learned row has one seed; the interval then covers requests only.
    """

    mean: float
    low: float
    high: float
    p: float
    seeds_known: bool


class Comparison(NamedTuple):
    """One row against the best other row.

    Attributes:
      best_other: the row with the highest mean among the others.
      difference: mean of (this row - best other).
      low, high: its interval. It covers the true difference to the row found best with at least
        95 %, although that row was chosen by the same values (Bonferroni over the other rows).
      p: of the two-sided t-test.
      p_holm: `p` corrected for all rows of the table.
      seeds_known: see `Difference`.
    """

    best_other: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    seeds_known: bool


def compare(table: Mapping[str, Row]) -> dict[str, Comparison]:
    """Compare each row with the best other row.

    Two rows may be each other's best other; both tests stay in Holm's family, which makes it a
    little too careful, never too bold.

    Args:
      table: the rows by name, all on the same requests.

    Raises:
      ValueError: fewer than two rows, rows on different requests, or a value that is not finite.
    """
    _check(table)
    means = {name: float(row.values.mean()) for name, row in table.items()}
    best = {name: max((o for o in table if o != name), key=means.__getitem__) for name in table}
    level = 1 - (1 - LEVEL) / (len(table) - 1)
    found = [difference(table[name], table[best[name]], level=level) for name in table]
    corrected = holm(np.array([d.p for d in found]))
    return {
        name: Comparison(best[name], d.mean, d.low, d.high, d.p, float(p), d.seeds_known)
        for name, d, p in zip(table, found, corrected, strict=True)
    }


def difference(a: Row, b: Row, *, level: float = LEVEL) -> Difference:
    """Return the mean of `a - b`, its interval of that level, and the p-value of no difference.

    Raises:
      ValueError: the rows are on different requests, or a value is not finite.
    """
    _check({"a": a, "b": b})
    parts = [_over(a.values.mean(axis=0) - b.values.mean(axis=0))]
    parts += [_over(row.values.mean(axis=1)) for row in (a, b) if row.learned]
    variances, freedoms = np.array([part for part in parts if part[1] > 0]).reshape(-1, 2).T
    mean, variance = float(a.values.mean() - b.values.mean()), float(variances.sum())
    known = all(len(row.values) > 1 for row in (a, b) if row.learned)
    if variance <= 1e-16:  # equal but for the rounding of sums
        return Difference(mean, mean, mean, float(abs(mean) < 1e-8), known)
    freedom = variance**2 / np.sum(variances**2 / freedoms)
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * variance**0.5
    p = float(2 * stats.t.sf(abs(mean) / variance**0.5, freedom))
    return Difference(mean, mean - half, mean + half, p, known)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Correct p-values for their number (Holm 1979): float64 `[M]`, in the order given."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def _over(values: np.ndarray) -> tuple[float, int]:
    """Return the variance of the mean of a sample, and its degrees of freedom (0: unknown)."""
    count = len(values)
    return (float(np.var(values, ddof=1)) / count if count > 1 else 0.0, count - 1)


def _check(table: Mapping[str, Row]) -> None:
    if len(table) < 2:
        raise ValueError(f"got {len(table)} row(s) {list(table)}: a comparison needs two or more")
    counts = {name: row.values.shape[1] for name, row in table.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"rows hold different requests: {counts}; evaluate all on one split")
    broken = [name for name, row in table.items() if not np.isfinite(row.values).all()]
    if broken or not all(counts.values()):
        raise ValueError(
            f"row(s) {broken or list(table)} lack values: leave excluded requests out of every row"
        )
