"""Calibration of sigmoid(logits) as probabilities, from sums that add up over batches."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax.types import Array

BINS = 15


class CalibrationSums(NamedTuple):
    """Sums over candidates; those of two batches add up field by field.

    Attributes:
      candidates: `[bins]`, candidates whose probability lies in the bin.
      probability: `[bins]`, sum of their probabilities.
      label: `[bins]`, sum of their labels.
      squared_error: scalar, sum of (probability - label)^2.
    """

    candidates: Array
    probability: Array
    label: Array
    squared_error: Array


def calibration_sums(
    logits: Array, labels: Array, where: Array, *, bins: int = BINS
) -> CalibrationSums:
    """Sort candidates into `bins` bins of equal width over [0, 1].

    Args:
      logits: `[B, N]`, finite.
      labels: `[B, N]` in [0, 1], compared as they are (graded labels count as probabilities).
      where: `bool [B, N]`, True = counts.
      bins: number of bins, >= 1.
    """
    probability = jax.nn.sigmoid(logits.astype(jnp.float32))
    index = jnp.minimum((probability * bins).astype(jnp.int32), bins - 1)
    # Masked sums instead of a scatter: the order of addition is fixed on every device.
    member = where & (index == jnp.arange(bins)[:, None, None])

    def per_bin(values: Array) -> Array:
        return jnp.sum(jnp.where(member, values, 0.0), axis=(1, 2))

    squared = jnp.where(where, (probability - labels) ** 2, 0.0)
    return CalibrationSums(
        per_bin(jnp.ones_like(probability)),
        per_bin(probability),
        per_bin(labels.astype(jnp.float32)),
        jnp.sum(squared),
    )


def expected_calibration_error(sums: CalibrationSums) -> float:
    """ECE (Guo et al. 2017, arXiv 1706.04599, eq. 3): mean |label rate - probability| over bins.

    Bins are weighted by their number of candidates; NaN without candidates.
    """
    total = float(np.sum(sums.candidates))
    gaps = np.abs(np.asarray(sums.label, np.float64) - np.asarray(sums.probability, np.float64))
    return float(gaps.sum() / total) if total else float("nan")


def brier(sums: CalibrationSums) -> float:
    """Brier score (1950): mean squared error of the probability; NaN without candidates."""
    total = float(np.sum(sums.candidates))
    return float(sums.squared_error) / total if total else float("nan")
