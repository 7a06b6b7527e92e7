"""Result tables from a run: terminal text, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Callable
from typing import NamedTuple

from dnr_jax.reports import budget, significance
from dnr_jax.reports.notes import LEVEL, VERSUS, notes
from dnr_jax.reports.rendering import Table, aligned, latex, latex_escape, markdown
from dnr_jax.reports.results import Line, Run, direct_of

ABSENT = "n/a"
TEXT_WIDTH = 110


class Column(NamedTuple):
    """One metric as the table shows it: value times `scale`, `digits` decimals."""

    title: str
    metric: str
    scale: float
    digits: int


def accuracy(run: Run) -> Table:
    """Build the main table: ranking metrics in percent and the paired comparison."""
    k = run.k
    columns = [Column(f"{n}@{k}", f"{n.lower()}@{k}", 100, 2) for n in ("H", "N", "M", "F1")]
    columns += [Column("AUC", "auc", 100, 2), Column("rho true", "spearman_truth", 1, 3)]
    return _table(run, "Accuracy", columns, (VERSUS, lambda line: _versus(run, line)))


def beyond_accuracy(run: Run) -> Table:
    """Build the second table: diversity, exposure, calibration and rank correlation.

    N@K end to end takes its ideal from all positives of a request, also those outside the pool.
    """
    k = run.k
    columns = [
        Column(f"N@{k} end to end", f"n@{k}_end_to_end", 100, 2),
        Column(f"diversity@{k}", f"diversity@{k}", 1, 3),
        Column(f"coverage@{k} %", f"coverage@{k}", 100, 1),
        Column(f"long tail@{k} %", f"long_tail@{k}", 100, 1),
        Column(f"popularity@{k}", f"popularity@{k}", 1, 1),
        Column("ECE %", "ece", 100, 2),
        Column("Brier", "brier", 1, 4),
        Column("Spearman", "spearman", 1, 3),
        Column("Kendall", "kendall", 1, 3),
        Column("Kendall true", "kendall_truth", 1, 3),
    ]
    return _table(run, "Beyond accuracy", columns)


def against_direct(run: Run) -> Table:
    """Build the table of DNR's main claim: its gain over the same reranker trained directly."""
    labels = {line.model: line.label for line in run.lines}
    metric = run.main_metric.upper()
    body = [
        [labels[model], labels[direct_of(model)], _difference(*found[:3])]
        for model, found in run.against_direct.items()
    ]
    return Table("DNR against direct training", ["model", "against", f"{metric} difference"], body)


def cost(run: Run) -> Table:
    """Build the third table: each row's parameters, training time and scoring time."""

    def cells(line: Line) -> list[str]:
        size = ABSENT if line.parameters is None else f"{line.parameters:,}"
        seconds = (line.training_seconds, line.scoring_seconds)
        return [size, *(ABSENT if s is None else f"{s:,.1f}" for s in seconds)]

    header = ["model", "parameters", "training s, all seeds", "scoring s, all seeds"]
    return Table("Cost", header, [[line.label, *cells(line)] for line in run.lines])


def overview(runs: list[Run]) -> Table:
    """Build the table of several protocols: the main metric of each model, in percent."""
    labels = list({line.label: None for run in runs for line in run.lines})
    columns = [{line.label: line for line in run.lines} for run in runs]

    def cell(run: Run, lines: dict[str, Line], label: str) -> str:
        column = Column("", run.main_metric, 100, 2)
        return number(lines[label], column) if label in lines else ABSENT

    pairs = list(zip(runs, columns, strict=True))
    body = [[label, *(cell(run, lines, label) for run, lines in pairs)] for label in labels]
    words = "protocol" if len({run.protocol for run in runs}) > 1 else "retriever"
    title = f"{runs[0].main_metric.upper()} by {words}, mean ± standard deviation over seeds"
    return Table(title, ["model", *(run.folder.name for run in runs)], body)


def overview_text(runs: list[Run]) -> str:
    """Render `overview` for a terminal."""
    return aligned(overview(runs)) + "\n"


def overview_markdown(runs: list[Run]) -> str:
    """Render `overview` as Markdown."""
    return markdown(overview(runs))


def to_text(run: Run) -> str:
    """Render the tables and the notes for a terminal."""
    parts = [aligned(table) for table in _tables(run)]
    parts.append(
        "\n".join(textwrap.fill(n, TEXT_WIDTH, subsequent_indent="  ") for n in notes(run))
    )
    return "\n\n".join(parts) + "\n"


def to_markdown(run: Run) -> str:
    """Render the tables and the notes as Markdown."""
    parts = [markdown(table) for table in _tables(run)]
    parts.append("\n".join(f"- {note}" for note in notes(run)))
    return "\n\n".join(parts) + "\n"


def to_latex(run: Run) -> str:
    """Render the tables as LaTeX floats for the package booktabs; the notes are the caption."""
    first, *others = _tables(run)
    captions = [f"{table.title}; {run.protocol}." for table in others]
    floats = [latex(first, latex_escape(" ".join(notes(run))))]
    floats += [latex(t, latex_escape(c)) for t, c in zip(others, captions, strict=True)]
    return "\n".join(floats)


def to_csv(run: Run) -> str:
    """Render one line per model with every metric's mean and spread, as unrounded fractions."""
    metrics = list({name: None for line in run.lines for name in line.mean})
    compared = significance.Comparison._fields
    header = ["model", "label", "trivial", "seeds", "protocol", "requests", "excluded"]
    header += [f"{m} {part}" for m in metrics for part in ("mean", "std")]
    header += [f"{run.main_metric} {name}" for name in compared]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for line in run.lines:
        seeds = " ".join(map(str, line.seeds))
        row = [line.model, line.label, line.trivial, seeds]
        row += [run.protocol, run.requests, run.excluded]
        for metric in metrics:
            row += [_cell(line.mean.get(metric)), _cell(line.spread.get(metric))]
        comparison = run.comparisons.get(line.model)
        row += [getattr(comparison, name, "") for name in compared]
        writer.writerow(row)
    return text.getvalue()


def _tables(run: Run) -> list[Table]:
    compared = [against_direct(run)] if run.against_direct else []
    chosen = [budget.table(run)] if budget.trained(run) else []
    return [accuracy(run), *compared, *chosen, beyond_accuracy(run), cost(run)]


def _table(
    run: Run,
    title: str,
    columns: list[Column],
    extra: tuple[str, Callable[[Line], str]] | None = None,
) -> Table:
    """Fill a table, leaving out columns that no line has a value for."""
    shown = [
        c for c in columns if any(math.isfinite(n.mean.get(c.metric, math.nan)) for n in run.lines)
    ]
    header = ["model", *(c.title for c in shown), *([extra[0]] if extra else [])]
    body = [
        [n.label, *(number(n, c) for c in shown), *([extra[1](n)] if extra else [])]
        for n in run.lines
    ]
    return Table(title, header, body)


def number(line: Line, column: Column) -> str:
    """Write a metric of a row: mean ± standard deviation over seeds, if defined."""
    mean, spread = (d.get(column.metric, math.nan) * column.scale for d in (line.mean, line.spread))
    if not math.isfinite(mean):
        return ABSENT
    text = f"{mean:.{column.digits}f}"
    return text if not math.isfinite(spread) else f"{text} ± {spread:.{column.digits}f}"


def _versus(run: Run, line: Line) -> str:
    comparison = run.comparisons.get(line.model)
    if comparison is None:
        return ABSENT
    mark = "=" if comparison.p_holm >= LEVEL else "*" if comparison.difference > 0 else " "
    mark = mark if comparison.seeds_known or mark == "=" else "?"
    return _difference(comparison.difference, comparison.low, comparison.high) + mark


def _difference(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"


def _cell(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else repr(value)
