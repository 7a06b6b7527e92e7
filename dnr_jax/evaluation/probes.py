"""Metrics of scorers that know nothing, only positions, or only the retriever's scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dnr_jax.data.store import Prepared, Split
from dnr_jax.evaluation.findings import LEAK, OK, WARN, Finding
from dnr_jax.evaluation.integrity import judged, positive
from dnr_jax.evaluation.summary import per_request_metrics
from dnr_jax.metrics.ranking import cumulative_discount

TOLERANCE = 4.0  # standard errors
EXPOSURE_GAP = 0.1  # of the AUC
_ROUNDING = 1e-5  # float32 metrics against float64 formulas
EVALUATED = ("valid", "test")

INVERTED = (
    "scores leak the answer: on this protocol the exposed items have LOW scores by construction; "
    "sorting by the NEGATIVE score alone gives N@{k} = {reversed:.3f} (retriever order "
    "{retriever:.3f}, chance {chance:.3f}); do not read results here as progress"
)


class Probe(NamedTuple):
    """Per-request metrics, on one split, of the scorers that every model should beat.

    Attributes:
      scorers: metrics by name, by the scorer's name.
      unknown: why some metric could not be computed, if so.
      scored: whether the first stage's scores differ between any two candidates.
    """

    scorers: dict[str, dict[str, np.ndarray]]
    unknown: str = ""
    scored: bool = True

    def mean(self, scorer: str, metric: str) -> float:
        """Average over the requests that count; NaN if there are none."""
        values = self.scorers[scorer][metric]
        kept = values[~np.isnan(values)].astype(np.float64)
        return float(kept.mean()) if kept.size else float("nan")

    def gain(self, scorer: str, metric: str) -> tuple[float, float]:
        """Return the mean paired gain over the constant scorer and its standard error."""
        gain = self.scorers[scorer][metric] - self.scorers["constant"][metric]
        gain = gain[~np.isnan(gain)].astype(np.float64)
        if gain.size < 2:
            return float("nan"), float("nan")
        return float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(gain.size))


def probe(prepared: Prepared, name: str, *, k: int) -> Probe:
    """Score split `name` by a constant, stored order, learned positions and retriever scores."""
    split = prepared.splits[name]
    scores = np.asarray(split.batch.scores)
    count = scores.shape[1]
    scorers = {
        "constant": np.zeros_like(scores),
        "stored_order": np.broadcast_to(-np.arange(count, dtype=np.float32), scores.shape),
        "position": np.broadcast_to(_position_rates(prepared.splits["train"]), scores.shape),
        "retriever": scores,
        "reversed": -scores,
    }
    labels, where = np.asarray(split.batch.labels), judged(split)
    values = {s: per_request_metrics(x, labels, where, k=k) for s, x in scorers.items()}
    return Probe(values, _what_is_missing(split), _tell_apart(split))


def _tell_apart(split: Split) -> bool:
    scores, where = np.asarray(split.batch.scores), np.asarray(split.batch.request.where)
    return bool(where.any() and np.ptp(scores[where]) > 0)


def _what_is_missing(split: Split) -> str:
    """Explain what the requests of a split lack, in case a metric cannot be computed."""
    count, positives = judged(split).sum(axis=1), positive(split).sum(axis=1)
    if not positives.any():
        return "no request of this split has a positive among its judged candidates"
    both = int(((positives > 0) & (positives < count)).sum())
    return f"{both or 'no'} request of this split has both a positive and a negative"


def _position_rates(train: Split) -> np.ndarray:
    """Learn from training how often each position holds a positive, `float32 [N]`."""
    seen = judged(train).sum(axis=0)
    rates = positive(train).sum(axis=0) / np.maximum(seen, 1)
    return np.asarray(rates, np.float32)


def chance(split: Split, *, k: int) -> dict[str, float]:
    """Expected H@k, N@k and AUC of a random order, by formula, over requests with a positive.

    With m positives among n judged candidates, each rank holds a positive with probability m / n.
    """
    n, m = judged(split).sum(axis=1), positive(split).sum(axis=1)
    n, m = n[m > 0], m[m > 0]
    if not n.size:
        return dict.fromkeys((f"h@{k}", f"n@{k}", "auc"), float("nan"))
    table = cumulative_discount(judged(split).shape[1], k).astype(np.float64)
    return {
        f"h@{k}": float((m / n * np.minimum(n, k) / k).mean()),
        f"n@{k}": float((m / n * table[n] / table[np.minimum(m, k)]).mean()),
        "auc": 0.5 if (n > m).any() else float("nan"),
    }


def check_chance(name: str, split: Split, probed: Probe, *, k: int) -> list[Finding]:
    """Check that scorers without knowledge stay at chance on one split."""
    expected = chance(split, k=k)
    gaps = {m: abs(probed.mean("constant", m) - value) for m, value in expected.items()}
    far = any(gap > _ROUNDING for gap in gaps.values())
    known = {m: value for m, value in expected.items() if not np.isnan(gaps[m])}
    numbers = ", ".join(f"{_label(m)} = {v:.4f}" for m, v in known.items())
    text = f"a constant scorer is {'NOT ' if far else ''}at chance ({numbers})"
    if len(known) < len(gaps):
        rest = ", ".join(_label(m) for m in gaps if m not in known)
        text = f"{text if known else 'a constant scorer'}: no {rest}, as {probed.unknown}"
    level = LEAK if far else OK if len(known) == len(gaps) else WARN
    constant = Finding(level, f"constant {name}", text)
    return [constant, *(_at_chance(name, scorer, probed, k) for scorer in _BLIND)]


_BLIND = {"stored_order": "the stored order", "position": "a scorer that knows stored places only"}


def _at_chance(name: str, scorer: str, probed: Probe, k: int) -> Finding:
    gains = {metric: probed.gain(scorer, metric) for metric in (f"h@{k}", f"n@{k}", "auc")}
    found = [
        f"{_label(metric)} off by {gain:+.4f} (standard error {error:.4f})"
        for metric, (gain, error) in gains.items()
        if abs(gain) > TOLERANCE * error + _ROUNDING
    ]
    unknown = [_label(metric) for metric, (gain, _) in gains.items() if np.isnan(gain)]
    if unknown and not found:
        text = f"{_BLIND[scorer]} cannot be compared in {', '.join(unknown)}: {probed.unknown}"
        return Finding(WARN, f"{scorer} {name}", text)
    says = f"NOT at chance: {', '.join(found)}" if found else "at chance"
    return Finding(LEAK if found else OK, f"{scorer} {name}", f"{_BLIND[scorer]} is {says}")


def _label(metric: str) -> str:
    return metric.upper()


def check_scores(name: str, probed: Probe, *, k: int) -> list[Finding]:
    """Report the metrics of the retriever's order and its reverse on one split, and which wins."""
    if not probed.scored:
        return [
            Finding(WARN, f"scores {name}", "no first stage: all candidates have the same score")
        ]
    lines = [
        _order(name, scorer, title, probed, k)
        for scorer, title in (("retriever", "retriever order"), ("reversed", "REVERSED order"))
    ]
    gain, error = probed.gain("retriever", "auc")
    if np.isnan(gain):
        text = (
            f"it is unknown whether the scores separate positives from negatives: {probed.unknown}"
        )
        return [*lines, Finding(WARN, f"scores {name}", text)]
    if gain < -TOLERANCE * error:
        return [*lines, Finding(LEAK, f"scores {name}", _inversion(probed, k))]
    if not gain > TOLERANCE * error:
        text = (
            "too few requests, or scores at chance: the retriever's AUC - 0.5 is "
            f"{gain:.3f}, less than {TOLERANCE:g} standard errors of {error:.3f}"
        )
        return [*lines, Finding(WARN, f"scores {name}", text)]
    return lines


def _order(name: str, scorer: str, title: str, probed: Probe, k: int) -> Finding:
    means = {metric: probed.mean(scorer, metric) for metric in (f"n@{k}", f"h@{k}", "auc")}
    known = {metric: value for metric, value in means.items() if not np.isnan(value)}
    text = f"{title}: " + ", ".join(f"{_label(m)} = {v:.3f}" for m, v in known.items())
    if len(known) < len(means):
        rest = ", ".join(_label(m) for m in means if m not in known)
        text += f"{', ' if known else ''}no {rest}, as {probed.unknown}"
    return Finding(OK if len(known) == len(means) else WARN, f"{scorer} {name}", text)


def _inversion(probed: Probe, k: int) -> str:
    order = {s: probed.mean(s, f"n@{k}") for s in ("retriever", "reversed")}
    return INVERTED.format(k=k, chance=probed.mean("constant", f"n@{k}"), **order)


def check_exposure(name: str, split: Split, probed: Probe, *, k: int) -> Finding:
    """Compare the retriever's AUC over all judged candidates with that over the shown ones only.

    If unshown candidates count as negatives, a model gains by predicting what was shown, not what
    was liked. A gap above `EXPOSURE_GAP` gives a warning.
    """
    where, exposed = judged(split), np.asarray(split.batch.exposed)
    scores, labels = np.asarray(split.batch.scores), np.asarray(split.batch.labels)
    share = (where & ~exposed).sum() / max(where.sum(), 1)
    text = f"{share:.1%} of judged candidates were never shown and count as negatives"
    if not probed.scored:
        return Finding(OK, f"exposure {name}", text)
    shown = {"retriever": per_request_metrics(scores, labels, where & exposed, k=k)}
    alone, overall = Probe(shown).mean("retriever", "auc"), probed.mean("retriever", "auc")
    text += "; "
    if np.isnan(overall) or np.isnan(alone):
        text += (
            "its effect on the retriever's AUC is unknown: no request has both a positive and "
            "a negative among its shown candidates"
        )
        return Finding(WARN, f"exposure {name}", text)
    text += (
        f"the retriever's AUC is {overall:.3f} over all, {alone:.3f} among shown candidates alone"
    )
    if abs(overall - alone) > EXPOSURE_GAP:
        text += ": metrics here largely reflect which items were shown, not which were liked"
        return Finding(WARN, f"exposure {name}", text)
    return Finding(OK, f"exposure {name}", text)


def check_pool(name: str, split: Split) -> Finding:
    """Report how many positives are in the pool, and how many requests have none there."""
    in_pool, total = positive(split).sum(axis=1), np.asarray(split.positives)
    total = np.maximum(total, in_pool)
    without = int((in_pool == 0).sum())
    left_out = f"{without} of {in_pool.size} requests have none and are left out"
    if not total.sum():
        return Finding(WARN, f"pool {name}", f"no request has a positive anywhere: {left_out}")
    text = (
        f"the pool holds {in_pool.sum() / total.sum():.1%} of all positives "
        f"({in_pool.sum()} of {total.sum()}); {left_out}"
    )
    return Finding(OK if in_pool.any() else WARN, f"pool {name}", text)
