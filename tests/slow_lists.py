"""Slow references for lists of items."""

from itertools import combinations

import numpy as np


def disagreement_by_hand(first, second):
    """Delta of two lists: dictionaries of places, all pairs of the union, three possible orders."""
    first, second = ([int(i) for i in row if i >= 0] for row in (first, second))

    def order(row, i, j):
        place = {item: number for number, item in enumerate(row)}
        return np.sign(place.get(i, 99) - place.get(j, 99))

    pairs = list(combinations(sorted({*first, *second}), 2))
    differ = [order(first, *pair) != order(second, *pair) for pair in pairs]
    return np.mean(differ) if pairs else 0.0
