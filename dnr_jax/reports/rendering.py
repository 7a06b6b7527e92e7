"""A table as text: for a terminal, in Markdown, in LaTeX."""

from __future__ import annotations

import re
from typing import NamedTuple


class Table(NamedTuple):
    """A table as text: the first column holds labels, the others numbers."""

    title: str
    header: list[str]
    body: list[list[str]]


def aligned(table: Table) -> str:
    """Render for a terminal: padded columns between rules."""
    grid = [table.header, *table.body]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = []
    for row in grid:
        numbers = (cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([row[0].ljust(widths[0]), *numbers]))
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([table.title, rule, lines[0], rule, *lines[1:], rule])


def markdown(table: Table) -> str:
    """Render as Markdown, title first."""

    def line(cells: list[str]) -> str:
        return (
            "| "
            + " | ".join(c.strip().replace("|", r"\|").replace("*", r"\*") for c in cells)
            + " |"
        )

    rule = "|" + "|".join(["---"] + ["---:"] * (len(table.header) - 1)) + "|"
    return "\n".join([f"## {table.title}", "", line(table.header), rule, *map(line, table.body)])


def latex(table: Table, caption: str) -> str:
    """Render as a LaTeX float for the package booktabs."""

    def line(cells: list[str]) -> str:
        escaped = (re.sub(r"(?<!\w)-(?=\d)", "$-$", latex_escape(c.strip())) for c in cells)
        return "    " + " & ".join(escaped) + r" \\"

    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{caption}}}",
            f"  \\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
            r"    \toprule",
            line(table.header),
            r"    \midrule",
            *map(line, table.body),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def latex_escape(text: str) -> str:
    """Escape what LaTeX would read as a command, and write its symbols as math."""
    escapes = {c: "\\" + c for c in "&%$#_{}"}
    escapes |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    escapes |= {"±": r"$\pm$", "<": "$<$", ">": "$>$"}
    escaped = "".join(escapes.get(c, c) for c in text)
    return escaped.replace("--", "{-}{-}")  # else a dash: options could not be copied
