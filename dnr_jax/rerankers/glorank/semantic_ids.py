"""Item vectors -> short sequences of codes that similar items share: residual k-means.

After TIGER (Rajput et al. 2023, arXiv 2305.05065), with k-means in place of its autoencoder. Runs
once, in NumPy, when a model is built.
"""

from __future__ import annotations

import numpy as np

# Rounds of Lloyd's algorithm.
ROUNDS = 10


def semantic_ids(vectors: np.ndarray, *, codes: int, levels: int, seed: int) -> np.ndarray:
    """Give every item its own sequence of codes: `int32 [V, L]` in 0..codes-1.

    The code of level 1 is the nearest of `codes` means of the directions `v / |v|`. Each further
    level does the same with the residuals of the level before. Items with equal codes on all levels
    are numbered, and the number is written in as many further codes as needed, so L >= `levels`.

    Args:
      vectors: `float32 [V, E]`; zero vectors count as equal.
      codes: size of each level's vocabulary, >= 2.
      levels: levels of means, >= 1.
      seed: chooses the first means.
    """
    draw = np.random.default_rng(seed)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    rest = vectors / np.where(lengths > 0, lengths, 1.0)
    found = []
    for _ in range(levels):
        means = k_means(rest, codes, draw)
        nearest = nearest_mean(rest, means)
        found.append(nearest)
        rest = rest - means[nearest]
    cells = np.stack(found, axis=1)
    return np.concatenate([cells, _digits(_number_in_cell(cells), codes)], axis=1).astype(np.int32)


def k_means(points: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """Fit `count` means to points `[V, E]`, starting from random points: `[count, E]`.

    A mean that is nearest to no point stays where it is.
    """
    means = points[draw.choice(len(points), count, replace=len(points) < count)]
    for _ in range(ROUNDS):
        nearest = nearest_mean(points, means)
        sizes = np.bincount(nearest, minlength=count)[:, None]
        sums = np.stack([np.bincount(nearest, column, count) for column in points.T], axis=1)
        means = np.where(sizes > 0, sums / np.maximum(sizes, 1), means)
    return means


def nearest_mean(points: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return the index of each point's nearest mean, the first of equally near ones: `[V]`."""
    nearest: np.ndarray = np.argmin(np.square(means).sum(axis=1) - 2 * points @ means.T, axis=1)
    return nearest


def _number_in_cell(cells: np.ndarray) -> np.ndarray:
    """Number equal rows from 0, in their order."""
    cell = np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(cell, kind="stable")
    sizes = np.bincount(cell)
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    numbers = np.empty(len(cell), np.int64)
    numbers[order] = np.arange(len(cell)) - first
    return numbers


def _digits(numbers: np.ndarray, base: int) -> np.ndarray:
    """Write numbers in a base, highest digit first, in as few columns as possible."""
    columns = []
    while numbers.any():
        columns.append(numbers % base)
        numbers = numbers // base
    return np.stack(columns[::-1], axis=1) if columns else np.empty((len(numbers), 0), np.int64)
