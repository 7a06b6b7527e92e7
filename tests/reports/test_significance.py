"""Tests over requests and seeds against SciPy, textbook numbers and simulated null tables."""

import numpy as np
import pytest
from scipy import stats

from dnr_jax.reports import significance
from dnr_jax.reports.significance import Row


def rows_of(random, *, rows, seeds, requests, seed_spread):
    """Draw equally good rows: N@6 has a part of the request, of row and request, seed and both."""
    shared = random.normal(0, 0.3, requests)
    return {
        str(number): Row(
            shared
            + random.normal(0, 0.1, requests)
            + random.normal(0, seed_spread, (seeds, 1))
            + random.normal(0, 0.15, (seeds, requests))
        )
        for number in range(rows)
    }


# Measured spreads of N@6 over seeds are 0.003 to 0.009; that of one request beside it is above.
@pytest.mark.parametrize("seed_spread", [0.0, 0.003, 0.009])
@pytest.mark.parametrize("seeds", [2, 3])
def test_null_tables_have_few_stars_and_intervals_cover(seeds, seed_spread):
    random, tables, stars, missed, planned = np.random.default_rng(0), 400, 0, 0, 0
    for _ in range(tables):
        table = rows_of(random, rows=5, seeds=seeds, requests=700, seed_spread=seed_spread)
        found = list(significance.compare(table).values())
        stars += any(c.p_holm < 0.05 and c.difference > 0 for c in found)
        missed += sum(not c.low <= 0 <= c.high for c in found)
        pair = significance.difference(table["0"], table["1"])
        planned += not pair.low <= 0 <= pair.high
    # 0.05 and two standard errors of 400 draws; far above it where seeds counted as fixed.
    assert stars / tables <= 0.05
    assert missed / (5 * tables) <= 0.05
    assert planned / tables <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / tables)


def test_seeds_as_fixed_would_be_stars_for_nothing():
    """The same null, judged over requests alone as once: most tables would have a star."""
    random, wrong = np.random.default_rng(1), 0
    for _ in range(100):
        a, b = rows_of(random, rows=2, seeds=2, requests=4000, seed_spread=0.009).values()
        wrong += stats.ttest_rel(a.values.mean(axis=0), b.values.mean(axis=0)).pvalue < 0.05
    assert wrong > 30


def test_without_seeds_it_is_the_paired_t_test():
    random = np.random.default_rng(2)
    a, b = random.random((2, 300))
    theirs = stats.ttest_rel(a, b)
    ours = significance.difference(Row(a[None], learned=False), Row(b[None], learned=False))
    assert ours.p == pytest.approx(theirs.pvalue)
    np.testing.assert_allclose([ours.low, ours.high], theirs.confidence_interval())
    assert ours.seeds_known


def test_without_spread_over_requests_it_is_welchs_test():
    a, b = np.array([0.70, 0.71, 0.75]), np.array([0.40, 0.41])
    theirs = stats.ttest_ind(a, b, equal_var=False)
    ours = significance.difference(
        *(Row(np.repeat(seeds[:, None], 50, axis=1)) for seeds in (a, b)), level=0.9
    )
    assert ours.p == pytest.approx(theirs.pvalue)
    np.testing.assert_allclose([ours.low, ours.high], theirs.confidence_interval(0.9))


def test_variances_add_up_with_satterthwaites_freedom():
    """Two seeds and three requests by hand."""
    a = np.array([[0.1, 0.5, 0.3], [0.3, 0.7, 0.8]])
    b = np.array([[0.2, 0.1, 0.0]])
    ours = significance.difference(Row(a), Row(b, learned=False))
    over_requests = np.var([0.0, 0.5, 0.55], ddof=1) / 3  # differences of means over seeds
    over_seeds = np.var([0.3, 0.6], ddof=1) / 2
    freedom = (over_requests + over_seeds) ** 2 / (over_requests**2 / 2 + over_seeds**2 / 1)
    t = 0.35 / np.sqrt(over_requests + over_seeds)
    assert ours.mean == pytest.approx(0.35)
    assert ours.p == pytest.approx(2 * stats.t.sf(t, freedom))


def test_one_seed_leaves_its_share_unknown():
    random = np.random.default_rng(3)
    one, two = Row(random.random((1, 50))), Row(random.random((2, 50)))
    order = Row(random.random((1, 50)), learned=False)
    assert not significance.difference(one, two).seeds_known
    assert not significance.difference(order, one).seeds_known
    assert significance.difference(order, two).seeds_known


def test_identical_rows_differ_by_nothing():
    a = Row(np.random.default_rng(4).random((1, 30)), learned=False)
    assert significance.difference(a, a) == (0, 0, 0, 1, True)


def test_holm_steps_down_and_stays_monotone():
    np.testing.assert_allclose(
        significance.holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02]
    )
    np.testing.assert_allclose(significance.holm(np.array([0.6, 0.9])), [1, 1])
    assert significance.holm(np.array([])).shape == (0,)


def test_each_row_is_compared_with_the_best_other_row():
    random = np.random.default_rng(0)
    base = random.random((1, 400))
    table = {
        "best": Row(base + 0.3 + random.normal(0, 0.05, (3, 400))),
        "middle": Row(base + 0.1, learned=False),
        "low": Row(base, learned=False),
        "same": Row(base.copy(), learned=False),
    }
    found = significance.compare(table)
    assert list(found) == list(table)
    assert found["best"].best_other == "middle"
    assert {found[n].best_other for n in ("middle", "low", "same")} == {"best"}
    assert found["best"].difference == pytest.approx(0.2, abs=0.01)
    assert found["low"].difference == pytest.approx(-0.3, abs=0.01)
    for row in found.values():
        assert row.low <= row.difference <= row.high
        assert row.p <= row.p_holm <= 1
    # Whichever of the three others is best, the interval covers: 95 % for all three together.
    alone = significance.difference(table["best"], table["middle"], level=1 - 0.05 / 3)
    assert (found["best"].low, found["best"].high) == (alone.low, alone.high)


def test_bad_input_is_named():
    ones = Row(np.ones((1, 3)))
    with pytest.raises(ValueError, match="needs two or more"):
        significance.compare({"a": ones})
    with pytest.raises(ValueError, match="different requests"):
        significance.compare({"a": ones, "b": Row(np.ones((1, 4)))})
    with pytest.raises(ValueError, match=r"'b'.*lack values"):
        significance.compare({"a": ones, "b": Row(np.full((1, 3), np.nan))})
    with pytest.raises(ValueError, match="lack values"):
        significance.compare({"a": Row(np.ones((1, 0))), "b": Row(np.ones((1, 0)))})
