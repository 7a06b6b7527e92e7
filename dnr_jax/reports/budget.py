"""The training budget of each learned row, and its choices on validation."""

from __future__ import annotations

from dnr_jax.reports.rendering import Table
from dnr_jax.reports.results import Line, Run


def table(run: Run) -> Table:
    """Build the table of the budget and the validation choices of each row trained here.

    A row whose choice lies at an edge may do better beyond it.
    """
    header = ["model", "best epoch by seed", "epochs at most", "rate times", "tried", "at an edge"]
    body = []
    for line in trained(run):
        train = run.config["rows"][line.row]["train"]
        chosen = [", ".join(map(str, line.best_epochs)), str(train["epochs"])]
        factors = train["learning_rate_factors"]
        tried = ", ".join(f"{factor:g}" for factor in factors)
        hits = "; ".join(edges(run, line)) or "no"
        unknown = " (one rate)" if len(factors) == 1 else ""
        body.append([line.label, *chosen, f"{line.factor:g}", tried, hits + unknown])
    return Table("Budget", header, body)


def trained(run: Run) -> list[Line]:
    """Return the learned rows, without an earlier model that was not trained here."""
    rows = run.config["rows"]
    return [n for n in run.lines if n.best_epochs and not rows[n.row].get("frozen", False)]


def edges(run: Run, line: Line) -> list[str]:
    """Say which of a learned row's choices on validation lie at an edge of the values tried.

    A model of several stages counts the epochs of its last one, which are fewer than the cap.
    """
    row = run.config["rows"][line.row]
    train, factors = row["train"], row["train"]["learning_rate_factors"]
    last, first = max(line.best_epochs), min(line.best_epochs)
    hits = ["best epoch is the last allowed"] if last >= train["epochs"] else []
    if len(factors) > 1 and line.factor in (min(factors), max(factors)):
        hits.append(f"{'highest' if line.factor == max(factors) else 'lowest'} rate tried")
    if row.get("generator") and first <= train["lambda_e"]:
        hits.append("best epoch of a seed before the learned generator")
    return hits
