"""The check of a log table before training: its columns, its faults, its scores."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dnr_jax.data import store, table
from dnr_jax.data.settings import Shape
from dnr_jax.data.store import Writer
from dnr_jax.data.table import report
from dnr_jax.data.table.settings import TableSettings
from dnr_jax.evaluation.audit import audit, render

_TRIVIAL = {"retriever": "first stage", "reversed": "first stage reversed", "constant": "chance"}
_COUNTS = {
    "requests": "requests",
    "rows": "candidates",
    "judged": "judged",
    "positives": "positives",
    "requests_without_positive": "without positive",
    "unknown_users": "of unknown users",
    "unknown_items": "unknown items",
}


class Checked(NamedTuple):
    """The findings about a table; both parts are JSON-able.

    Attributes:
      report: the reader's report: columns as understood, counts, splits, `findings`, `warnings`.
      audit: leaks, and metrics of the first stage and of trivial scorers; None = left out.
    """

    report: dict[str, Any]
    audit: dict[str, Any] | None

    def __str__(self) -> str:
        """Write everything as plain lines."""
        lines = [*self.report["findings"], "", *_counts(self.report["splits"]), ""]
        if self.audit is not None:
            lines += ["on the test split:", *(f"  {x}" for x in self.first_stage()), ""]
        lines += [f"WARN  {text}" for text in self.report["warnings"]]
        return "\n".join([*lines, *(["", render(self.audit)] if self.audit is not None else [])])

    def first_stage(self, split: str = "test") -> list[str]:
        """Describe the quality of the first stage's order, its reverse and chance, one line each.

        Without scores of a first stage, there is only chance.
        """
        scorers = self.audit["scorers"][split] if self.audit is not None else {}
        told = _TRIVIAL if self.report["score"] else ("constant",)
        names = [name for name in told if name in scorers]
        return [f"{_TRIVIAL[name]}: {_numbers(scorers[name])}" for name in names]


def check_log(
    given: Any, settings: TableSettings, shape: Shape, *, seed: int = 0, progress: bool = False
) -> Checked:
    """Read a table as for training, audit it, and delete all that was written.

    Args:
      given: a path, or a polars, pandas or pyarrow table.
      settings: how it is read.
      shape: candidates N and shown places K; metrics are cut at K.
      seed: seed of splits by hash and of the order of candidates.
      progress: shows a bar.

    Raises:
      FileNotFoundError, ValueError, TypeError: see `table.examine`.
    """

    def build(writer: Writer) -> None:
        table.build(writer, given, settings, shape, seed=seed, progress=progress)

    with tempfile.TemporaryDirectory() as scratch:
        prepared = store.prepare(Path(scratch), {}, build)
        found = audit(prepared, k=shape.slate, protocol="logged")
    return Checked(prepared.report, found)


def glance(given: Any, settings: TableSettings, *, seed: int = 0) -> Checked:
    """Check every value, but without arrays and so without an audit; see `check_log`."""
    seen = table.examine(given, settings, seed=seed)
    found = report.facts(seen, weight_cap=settings.weight_cap)
    said = {"findings": report.findings(found), "warnings": report.before_arrays(found)}
    return Checked(found | said, None)


def _numbers(means: Mapping[str, float | None]) -> str:
    found = {name.upper(): value for name, value in means.items()}
    return ", ".join(f"{n} {'-' if v is None else format(v, '.4f')}" for n, v in found.items())


def _counts(splits: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Align the counts of all splits in columns."""
    names = [name for name in _COUNTS if all(name in counts for counts in splits.values())]
    rows = [["", *(_COUNTS[name] for name in names)]]
    rows += [[split, *(f"{c[name]:,}" for name in names)] for split, c in splits.items()]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))
        for row in rows
    ]
