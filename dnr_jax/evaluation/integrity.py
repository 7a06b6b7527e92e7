"""Checks of a prepared data set that need no scorer: ids, labels, positions. NumPy."""

from __future__ import annotations

import numpy as np
from scipy import stats

from dnr_jax.data.store import SPLITS, Prepared, Split
from dnr_jax.evaluation.findings import LEAK, OK, WARN, Finding
from dnr_jax.metrics import POSITIVE_ABOVE
from dnr_jax.metrics.beyond import FIRST_KNOWN_ID

SUSPICIOUS_P = 1e-4
_MIN_EXPECTED = 5.0  # expected positives per position for which the chi-square law holds


def judged(split: Split) -> np.ndarray:
    """Mark the candidates that count in metrics: real and with positive weight, `bool [R, N]`."""
    return np.asarray(split.batch.request.where) & (np.asarray(split.batch.weights) > 0)


def positive(split: Split) -> np.ndarray:
    """Mark the judged candidates with a positive label, `bool [R, N]`."""
    return judged(split) & (np.asarray(split.batch.labels) > POSITIVE_ABOVE)


def check_pairs(prepared: Prepared, protocol: str) -> list[Finding]:
    """Look for the (user, item) pairs of test positives in training and in their own history.

    In a log with repeated exposures (protocol `logged`) a pair may legitimately come back. In the
    other protocols pools contain only unseen items, so a single pair is a leak.
    """
    train, test = prepared.splits["train"], prepared.splits["test"]
    wanted = _candidate_pairs(test, positive(test))
    met = _history_pairs(train)
    shown = _candidate_pairs(train, np.asarray(train.batch.exposed) | positive(train))
    hidden = np.setdiff1d(_candidate_pairs(train, judged(train)), shown)
    worst = WARN if protocol == "logged" else LEAK
    own = _own_history(test)
    return [
        _pair_finding("training pairs", wanted, np.union1d(met, shown), worst, "in training"),
        _pair_finding(
            "training negatives", wanted, hidden, WARN, "among unexposed training negatives"
        ),
        Finding(
            worst if own.any() else OK,
            "own history",
            f"{int(own.sum())} of {own.size} test positives are in the request's own history",
        ),
    ]


def _codes(users: np.ndarray, items: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Number the known (user, item) pairs: unique int64."""
    users = np.broadcast_to(users[:, None], items.shape)
    keep = keep & (users >= FIRST_KNOWN_ID) & (items >= FIRST_KNOWN_ID)
    return np.unique(users[keep].astype(np.int64) << 32 | items[keep].astype(np.int64))


def _candidate_pairs(split: Split, keep: np.ndarray) -> np.ndarray:
    request = split.batch.request
    return _codes(np.asarray(request.user)[:, 0], np.asarray(request.candidates)[..., 0], keep)


def _history_pairs(split: Split) -> np.ndarray:
    request = split.batch.request
    items, keep = np.asarray(request.history)[..., 0], np.asarray(request.history_where)
    return _codes(np.asarray(request.user)[:, 0], items, keep)


def _own_history(split: Split) -> np.ndarray:
    """Return for every known test positive whether the item is in its request's history."""
    request = split.batch.request
    items = np.asarray(request.candidates)[..., 0]
    past = np.where(np.asarray(request.history_where), np.asarray(request.history)[..., 0], -1)
    rows, columns = np.nonzero(positive(split) & (items >= FIRST_KNOWN_ID))
    return np.asarray((past[rows] == items[rows, columns][:, None]).any(axis=1))


def _pair_finding(
    check: str, wanted: np.ndarray, known: np.ndarray, worst: str, where: str
) -> Finding:
    found = int(np.isin(wanted, known, assume_unique=True).sum())
    text = f"{found} of {wanted.size} (user, item) pairs of test positives are {where}"
    return Finding(worst if found else OK, check, text)


def check_request_ids(prepared: Prepared) -> Finding:
    """Look for requests that are in two splits or twice in one."""
    ids = np.concatenate([np.asarray(prepared.splits[s].request_id) for s in SPLITS])
    repeated = int(ids.size - np.unique(ids).size)
    text = f"{repeated} of {ids.size} requests are in two splits or twice in one"
    return Finding(LEAK if repeated else OK, "request ids", text)


def check_duplicates(prepared: Prepared) -> Finding:
    """Look for requests that contain the same known item twice."""
    requests = sum(_rows_with_duplicates(prepared.splits[s]) for s in SPLITS)
    text = f"{requests} requests hold the same candidate twice"
    return Finding(LEAK if requests else OK, "duplicates", text)


def _rows_with_duplicates(split: Split) -> int:
    request = split.batch.request
    items = np.asarray(request.candidates)[..., 0]
    real = np.asarray(request.where) & (items >= FIRST_KNOWN_ID)
    # Padding and unknown items, which may repeat, become distinct negative numbers.
    ordered = np.sort(np.where(real, items, -1 - np.arange(items.shape[1])), axis=1)
    return int((ordered[:, 1:] == ordered[:, :-1]).any(axis=1).sum())


def check_ties(prepared: Prepared) -> list[Finding]:
    """Count the lists that begin within a tie of timestamps, if the data is split by time.

    Such a list could also have begun earlier or later: tied items are in file order.
    """
    counts = prepared.report.get("lists", {})
    tied, total = counts.get("lists_starting_in_a_tie"), counts.get("lists")
    if tied is None or not total:
        return []
    text = (
        f"{tied / total:.1%} of lists ({tied} of {total}) begin between items with the same "
        "timestamp, where file order decided what came before"
    )
    return [Finding(WARN if tied else OK, "ties", text)]


def check_padding(prepared: Prepared) -> Finding:
    """Look for labels, weights, scores or exposures on padding."""
    wrong = 0
    for name in SPLITS:
        batch = prepared.splits[name].batch
        padding = ~np.asarray(batch.request.where)
        fields = (batch.labels, batch.weights, batch.scores, batch.exposed)
        wrong += sum(int((padding & (np.asarray(field) != 0)).sum()) for field in fields)
    text = f"{wrong} labels, weights, scores or exposures are on padding"
    return Finding(LEAK if wrong else OK, "padding", text)


def check_positions(prepared: Prepared) -> list[Finding]:
    """Test for every split that the position of positives is uniform over real candidates."""
    return [_position_finding(name, prepared.splits[name]) for name in SPLITS]


def _position_finding(name: str, split: Split) -> Finding:
    p = position_p_value(positive(split), np.asarray(split.batch.request.where))
    if np.isnan(p):
        return Finding(WARN, f"positions {name}", "too few positives to test their positions")
    bad = p < SUSPICIOUS_P
    places = "places of positives among the candidates as they are stored"
    text = f"{places} are {'NOT ' if bad else ''}uniform: chi-square p = {p:.2g}"
    return Finding(LEAK if bad else OK, f"positions {name}", text)


def position_p_value(positives: np.ndarray, where: np.ndarray) -> float:
    """Test that every real position of a list is equally likely to hold a positive.

    A list with m positives on n real positions w has mean m / n and covariance
    m (n - m) / (n (n - 1)) (diag(w) - w w' / n). The positives are drawn without replacement, so
    the plain chi-square test would be too conservative. The quadratic form of the summed deviation
    in the inverse of the summed covariance is chi-square, with the rank as degrees of freedom.

    Args:
      positives: `bool [R, N]`, within `where`.
      where: `bool [R, N]`, real candidates.

    Returns:
      The p-value; NaN if fewer than two positions expect `_MIN_EXPECTED` positives.
    """
    m, n = positives.sum(axis=1).astype(float), where.sum(axis=1).astype(float)
    real = where.astype(float)
    expected = (m / np.maximum(n, 1)) @ real
    spread = m * (n - m) / np.maximum(n * (n - 1), 1)
    covariance = np.diag(spread @ real) - real.T @ ((spread / np.maximum(n, 1))[:, None] * real)
    tested = np.flatnonzero(expected >= _MIN_EXPECTED)
    if tested.size < 2:
        return float("nan")
    deviation = (positives.sum(axis=0) - expected)[tested]
    block = covariance[np.ix_(tested, tested)]
    rank = np.linalg.matrix_rank(block, hermitian=True)
    statistic = deviation @ np.linalg.pinv(block, hermitian=True) @ deviation
    return float(stats.chi2.sf(statistic, rank))
