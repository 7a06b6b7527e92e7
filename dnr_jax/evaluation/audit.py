"""The audit of a candidate set: conditions that must hold before any result on it is believed."""

from __future__ import annotations

from typing import Any

import numpy as np

from dnr_jax.data.store import SPLITS, Prepared
from dnr_jax.evaluation import integrity, probes
from dnr_jax.evaluation.findings import LEVELS, WARN, Finding

INJECTED = {
    "exposed_plus_retrieved": "exposed items are put into the pool by construction: use it only to "
    "compare with published figures, and draw no other conclusions",
    "exposed_plus_sampled": "exposed items are mixed with sampled negatives: sampled metrics are "
    "optimistic and need not order models as full ranking does",
}


def audit(prepared: Prepared, *, k: int, protocol: str) -> dict[str, Any]:
    """Check a prepared data set for leaks, and measure trivial scorers on it.

    Args:
      prepared: all splits.
      k: length of the shown list.
      protocol: how candidates were chosen, as in `config.candidates.name`.

    Returns:
      A JSON-able dict: `protocol`, `k`, `level` (the worst one), `findings` (list of `level`,
      `check`, `text`) and `scorers` (split -> scorer -> metric -> mean; None if no request counts).

    Raises:
      ValueError: a score, label or weight is NaN, infinite or out of range.
    """
    for name in SPLITS:
        _check_ranges(prepared, name)
    probed = {name: probes.probe(prepared, name, k=k) for name in probes.EVALUATED}
    found = _protocol(protocol) + _integrity(prepared, protocol)
    for name, result in probed.items():
        split = prepared.splits[name]
        found += probes.check_chance(name, split, result, k=k)
        found += [probes.check_pool(name, split), *probes.check_scores(name, result, k=k)]
        found.append(probes.check_exposure(name, split, result, k=k))
    return {
        "protocol": protocol,
        "k": k,
        "level": max((f.level for f in found), key=LEVELS.index),
        "findings": [f._asdict() for f in found],
        "scorers": {name: _means(result, k) for name, result in probed.items()},
    }


def refuse_unmeasurable(prepared: Prepared) -> None:
    """Refuse, before training, a data set on which no model could be chosen or measured.

    Raises:
      ValueError: no request of the validation or of the test split has a judged positive.
    """
    for name in probes.EVALUATED:
        split = prepared.splits[name]
        if not integrity.positive(split).any():
            raise ValueError(
                f"none of the {len(split.request_id)} requests of the {name} split has a positive "
                "among its candidates, so nothing can be measured there: check which rows of the "
                "data count as positive, and raise the number of candidates, days or users"
            )


def render(findings: dict[str, Any]) -> str:
    """Write an audit as plain lines, one per finding, that start with OK, WARN or LEAK."""
    title = f"audit of protocol {findings['protocol']}: {findings['level']}"
    lines = [f"{f['level']:<5} {f['check'] + ':':<21} {f['text']}" for f in findings["findings"]]
    return "\n".join([title, *lines])


def _protocol(protocol: str) -> list[Finding]:
    return [Finding(WARN, "protocol", INJECTED[protocol])] if protocol in INJECTED else []


def _integrity(prepared: Prepared, protocol: str) -> list[Finding]:
    return [
        *integrity.check_pairs(prepared, protocol),
        integrity.check_request_ids(prepared),
        integrity.check_duplicates(prepared),
        integrity.check_padding(prepared),
        *integrity.check_positions(prepared),
        *integrity.check_ties(prepared),
    ]


def _means(probed: probes.Probe, k: int) -> dict[str, dict[str, float | None]]:
    """Average every scorer's metrics; None instead of NaN, which JSON does not have."""
    result: dict[str, dict[str, float | None]] = {}
    for scorer in probed.scorers:
        means = {m: probed.mean(scorer, m) for m in (f"n@{k}", f"h@{k}", "auc")}
        result[scorer] = {m: None if np.isnan(value) else value for m, value in means.items()}
    return result


def _check_ranges(prepared: Prepared, name: str) -> None:
    batch = prepared.splits[name].batch
    for field, high in (("scores", 1.0), ("labels", 1.0), ("weights", np.inf)):
        values = np.asarray(getattr(batch, field))
        wrong = ~((values >= 0) & (values <= high) & np.isfinite(values))
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ValueError(
                f"{int(wrong.sum())} {field} of split {name!r} are NaN or out of [0, {high:g}], "
                f"first {values[row, column]} at request {row}, candidate {column}: "
                "check the loader's scaling, delete the prepared folder and build it again"
            )
