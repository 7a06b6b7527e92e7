"""Paired tests against SciPy, exact enumeration and textbook numbers."""

import itertools

import numpy as np
import pytest
from scipy import stats

from dnr_jax.reports import significance


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    b = rng.random(300)
    return b + rng.normal(0.02, 0.15, 300), b


def test_permutation_p_agrees_with_enumeration():
    d = np.array([0.3, -0.1, 0.2, 0.4, -0.05, 0.25, 0.1, 0.0, -0.2, 0.3])
    flips = np.array(list(itertools.product([-1, 1], repeat=10)))
    exact = np.mean(np.abs(flips @ d) >= abs(d.sum()) - 1e-12)
    assert significance.permutation_test(d, 0 * d, seed=0) == pytest.approx(exact, abs=0.015)


def test_permutation_p_agrees_with_scipy(pair):
    theirs = stats.permutation_test(
        pair,
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=4999,
        rng=np.random.default_rng(1),
    )
    ours = significance.permutation_test(*pair, seed=0)
    assert ours == pytest.approx(theirs.pvalue, abs=0.02)


def test_bootstrap_agrees_with_scipy(pair):
    a, b = pair
    theirs = stats.bootstrap(
        (a - b,), np.mean, method="percentile", n_resamples=4999, rng=np.random.default_rng(1)
    ).confidence_interval
    difference, low, high = significance.paired_bootstrap(a, b, seed=0)
    assert difference == pytest.approx((a - b).mean())
    np.testing.assert_allclose([low, high], theirs, atol=2e-3)


def test_p_values_are_uniform_without_an_effect():
    rng = np.random.default_rng(2)
    d = rng.normal(size=(200, 60))
    p = [significance.permutation_test(x, 0 * x, seed=i, resamples=199) for i, x in enumerate(d)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_identical_rows_differ_by_nothing(pair):
    a, _ = pair
    assert significance.permutation_test(a, a, seed=0, resamples=99) == 1
    assert significance.paired_bootstrap(a, a, seed=0, resamples=99) == (0, 0, 0)


def test_excluded_requests_change_nothing(pair):
    a, b = (np.concatenate([x, np.full(50, np.nan)]) for x in pair)
    a[-1], b[-2] = 5, -5
    difference, low, high = significance.paired_bootstrap(a, b, seed=0)
    plain = significance.paired_bootstrap(*pair, seed=0)
    np.testing.assert_allclose([difference, low, high], plain, atol=3e-3)
    p = significance.permutation_test(a, b, seed=0)
    assert p == pytest.approx(significance.permutation_test(*pair, seed=0), abs=0.02)


def test_holm_steps_down_and_stays_monotone():
    np.testing.assert_allclose(
        significance.holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02]
    )
    np.testing.assert_allclose(significance.holm(np.array([0.6, 0.9])), [1, 1])
    assert significance.holm(np.array([])).shape == (0,)


def test_each_row_is_compared_with_the_best_other_row():
    rng = np.random.default_rng(0)
    base = rng.random(400)
    base[:20] = np.nan
    rows = {
        "best": base + 0.3 + rng.normal(0, 0.05, 400),
        "middle": base + 0.1,
        "low": base,
        "same": base.copy(),
    }
    found = significance.compare(rows, seed=3)
    assert list(found) == list(rows)
    assert found["best"].best_other == "middle"
    assert {found[n].best_other for n in ("middle", "low", "same")} == {"best"}
    assert found["best"].difference == pytest.approx(0.2, abs=0.01)
    assert found["low"].difference == pytest.approx(-0.3, abs=0.01)
    for row in found.values():
        assert row.low <= row.difference <= row.high
        assert row.p <= row.p_holm <= 1
        assert all(type(x) is float for x in row[1:])
    assert found["best"].p_holm == pytest.approx(4 / 10000)
    assert significance.compare(rows, seed=3) == found


def test_bad_input_is_named():
    ones = np.ones(3)
    with pytest.raises(ValueError, match="needs two or more"):
        significance.compare({"a": ones}, seed=0)
    with pytest.raises(ValueError, match="different requests"):
        significance.compare({"a": ones, "b": np.ones(4)}, seed=0)
    with pytest.raises(ValueError, match=r"no value at all.*'b'"):
        significance.compare({"a": ones, "b": ones * np.nan}, seed=0)
    with pytest.raises(ValueError, match="share no request"):
        significance.permutation_test(
            np.array([1, np.nan]), np.array([np.nan, 1]), seed=0, resamples=9
        )
