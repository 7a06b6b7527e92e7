"""The notes under the tables: the meaning of the numbers, what they show, their origin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dnr_jax.data.signatures import fingerprint
from dnr_jax.reports import budget, significance
from dnr_jax.reports.results import Run

LEAKING_PROTOCOL = "exposed_plus_retrieved"
LEVEL = 0.05  # of `significance.STAR_MEANING`
VERSUS = "vs best other"


def notes(run: Run) -> list[str]:
    """Say in plain sentences what the numbers mean, what they show, and where they come from."""
    return [*_meaning(run), *_trials(run), *_edges(run), *_verdict(run), *_origin(run)]


def _meaning(run: Run) -> list[str]:
    seeds = sorted({seed for line in run.lines for seed in line.seeds})
    metric = run.main_metric.upper()
    return [
        f"Protocol {run.protocol}, test split: {run.requests} requests, of which {run.excluded} "
        "have no positive in the pool and are left out.",
        "Accuracy in percent; rho is the rank correlation with the true relevance (simulators only)"
        f". Mean ± sample standard deviation over seeds {', '.join(map(str, seeds))}; "
        "one value where a row has one seed.",
        "Cost: parameters of one seed; wall time of training and of scoring the validation and "
        "test splits, waits for compilation and metrics included, all seeds (and trials) together.",
        f"Differences are in {metric} points with an interval of at least 95 % over requests and "
        f'seeds; that of "{VERSUS}" also covers the choice of that row. '
        f"{significance.STAR_MEANING} = not significantly different (p >= {LEVEL} in that test).",
        *_one_seed(run),
    ]


def _one_seed(run: Run) -> list[str]:
    """Name the rows whose variance over seeds is unknown."""
    single = [line.label for line in run.lines if not line.trivial and len(line.seeds) < 2]
    if not single:
        return []
    return [
        "? differs significantly over requests, but a learned row has one seed: what another seed "
        f"would change is unknown, and in no interval. One seed: {'; '.join(single)}."
    ]


def _trials(run: Run) -> list[str]:
    """Say how many validation trials the learned rows had."""
    rows = [run.config["rows"][line.row] for line in run.lines]
    found = {tuple(r["train"]["learning_rate_factors"]) for r in rows if "train" in r}
    if all(len(factors) < 2 for factors in found):
        rates = sorted({factor for factors in found for factor in factors})
        times = f" times {' or '.join(f'{r:g}' for r in rates)}" if rates not in ([], [1]) else ""
        return [f"No row was tuned: the learned rows use the learning rates of the config{times}."]
    if len(found) > 1:
        return ["Learned rows had different numbers of trials of their learning rates."]
    (factors,) = found
    listed = ", ".join(f"{factor:g}" for factor in factors)
    return [
        f"Every learned row had the same {len(factors)} trials, its learning rates times {listed}, "
        "and shows the one with the best mean validation value over seeds."
    ]


def _edges(run: Run) -> list[str]:
    """Name the rows that may not be converged."""
    hits = {line.label: budget.edges(run, line) for line in budget.trained(run)}
    if not hits:
        return []
    named = [f"{label} ({', '.join(found)})" for label, found in hits.items() if found]
    if not named:
        rows = [run.config["rows"][line.row]["train"] for line in budget.trained(run)]
        varied = all(len(row["learning_rate_factors"]) > 1 for row in rows)
        what = "epoch and rate lie" if varied else "epoch lies"
        return [f"Every learned row's best {what} inside what was tried."]
    return [f"At an edge of what was tried, so perhaps better beyond it: {'; '.join(named)}."]


def _verdict(run: Run) -> list[str]:
    best, metric = run.best_trivial, run.main_metric
    if best is None and any(line.trivial for line in run.lines):
        return [
            f"No request of the test split has a value of {metric.upper()}: nothing was measured, "
            "and no rows can be compared."
        ]
    if best is None:
        return ["This table has no trivial scorers: it cannot say whether anything was learned."]
    value = f"{metric.upper()} = {100 * best.mean[metric]:.2f}"
    said = [f"Best trivial scorer: {best.label}, {value}."]
    if run.protocol == LEAKING_PROTOCOL:
        said.append(
            "On this protocol the retriever's scores leak the answer: the negatives are its own "
            f"top items, so exposed items score low by construction, and {best.label} alone gives "
            f"{value}. Use it to compare with published figures, not as evidence of progress."
        )
    learned = [line for line in run.lines if not line.trivial]
    weak = [line.label for line in learned if not run.against_trivial.get(line.model, 0) > 0]
    if weak:
        said.append(
            "Learned rows that do NOT clearly beat it (95 % interval of the difference "
            f"reaches 0 or below): {'; '.join(weak)}."
        )
    elif learned:
        said.append("Every learned row beats it (95 % interval of the difference above 0).")
    return said


def _origin(run: Run) -> list[str]:
    about = run.environment
    commit = about["commit"]
    name = "not run from a clone"
    if commit is not None:
        name = commit["name"][:12] + (" with uncommitted changes" if commit["dirty"] else "")
    devices = ", ".join(sorted(set(about["devices"])))
    return [
        f"Config {fingerprint(run.config)}; commit {name}.",
        f"Hardware: {about['cpu']}, {about['cpu_count']} cores, {about['memory_gib']} GiB; "
        f"{about['backend']} backend ({len(about['devices'])} x {devices}); "
        f"jax {about['packages']['jax']}, Python {about['python']}.",
        *_resumption(about),
        *_merged(about),
        f"Command: {about['command']}",
    ]


def _merged(about: Mapping[str, Any]) -> list[str]:
    """Say where each row merged from another run folder was made."""
    said = []
    for other in about.get("merged", []):
        changed = sorted(other.keys() - {"rows", "command"})
        differed = f" ({', '.join(changed)} differed)" if changed else ""
        said.append(f"Rows {', '.join(other['rows'])}{differed} by: {other['command']}")
    return said


def _resumption(about: Mapping[str, Any]) -> list[str]:
    changed = sorted({key for change in about.get("resumed", []) for key in change})
    if not changed:
        return []
    return [f"Resumed in another environment; what differed from the first: {', '.join(changed)}."]
