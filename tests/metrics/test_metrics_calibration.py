"""Calibration sums against hand-written bins and scikit-learn."""

import jax
import numpy as np
import pytest

from dnr_jax.metrics import calibration


def sums_of(logits, labels, where):
    return jax.jit(calibration.calibration_sums)(np.float32(logits), np.float32(labels), where)


@pytest.fixture(scope="module")
def judged():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, 12)).astype(np.float32) * 2
    labels = (rng.random((40, 12)) < 0.3).astype(np.float32)
    return logits, labels, rng.random((40, 12)) < 0.8


def test_ece_is_the_weighted_gap_of_fifteen_bins(judged):
    logits, labels, where = judged
    p, z = 1 / (1 + np.exp(-logits[where].astype(np.float64))), labels[where]
    bins = np.minimum((p * 15).astype(int), 14)
    expected = sum(
        abs(z[bins == b].mean() - p[bins == b].mean()) * (bins == b).mean() for b in set(bins)
    )
    sums = sums_of(*judged)
    assert calibration.expected_calibration_error(sums) == pytest.approx(expected, abs=1e-6)


def test_brier_agrees_with_scikit_learn(judged):
    from sklearn.metrics import brier_score_loss

    logits, labels, where = judged
    expected = brier_score_loss(labels[where], 1 / (1 + np.exp(-logits[where])))
    assert calibration.brier(sums_of(*judged)) == pytest.approx(expected, abs=1e-6)


def test_sums_of_parts_add_up(judged):
    whole = sums_of(*judged)
    parts = [sums_of(*(a[rows] for a in judged)) for rows in (slice(0, 15), slice(15, 40))]
    added = jax.tree.map(lambda a, b: a + b, *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, added)


def test_probability_one_falls_into_the_last_bin_and_masked_content_is_ignored():
    sums = sums_of([[100.0, np.nan]], [[1, 1]], np.array([[True, False]]))
    assert sums.candidates.tolist() == [0] * 14 + [1]
    assert calibration.expected_calibration_error(sums) == 0
    assert calibration.brier(sums) == 0


def test_nothing_judged_gives_nan():
    sums = sums_of(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 2), bool))
    assert np.isnan(calibration.expected_calibration_error(sums))
    assert np.isnan(calibration.brier(sums))
