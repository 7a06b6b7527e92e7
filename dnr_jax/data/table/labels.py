"""Convert labels of any scale to the feedback z in [0, 1]."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from dnr_jax.data.table.columns import Typed
from dnr_jax.data.table.reader import collect
from dnr_jax.data.table.settings import TableSettings

POSITIVE = 0.5  # z above it is positive, everywhere in the package


class Grading(NamedTuple):
    """How a label becomes z.

    Attributes:
      rule: "as_is", "binary", "linear" or "exponential".
      least: the least positive label, for "binary".
      top: the greatest label of the table.
    """

    rule: str
    least: float
    top: float

    def __str__(self) -> str:
        """Say it in words."""
        return {
            "as_is": "labels as they are",
            "binary": f"1 from a label of {self.least:g} on, else 0",
            "linear": f"label / {self.top:g}",
            "exponential": f"(2^label - 1) / (2^{self.top:g} - 1)",
        }[self.rule]

    def expression(self) -> pl.Expr:
        """Return z as float32, null where the label is missing."""
        label = pl.col("label")
        z: pl.Expr = {
            "as_is": label,
            "binary": (label >= self.least).cast(pl.Float64),
            "linear": label / self.top,
            "exponential": (2.0**label - 1) / (2.0**self.top - 1),
        }[self.rule]
        return z.cast(pl.Float32)


def grading(table: Typed, settings: TableSettings) -> Grading:
    """Choose the rule that fits the table's labels.

    Raises:
      ValueError: there is no label, or all of them are equal, before or after the rule.
    """
    place, names = table.source.place, ", ".join(table.schema.labels)
    label = pl.col("label")
    found = table.frame.select(label.min().alias("low"), label.max().alias("top"))
    low, top = collect(found, table.source.files).row(0)
    if top is None:
        raise ValueError(f"{place}: {names} is empty in every row: nothing was judged")
    if low == top:
        raise ValueError(
            f"{place}: {names} is {low:g} in every row that has one: log candidates of both kinds, "
            "those that were liked and those that were not"
        )
    rule = settings.grades if settings.grades != "auto" else "as_is" if top <= 1 else "binary"
    if rule == "as_is" and top > 1:
        raise ValueError(
            f"grades is as_is, but {names} goes up to {top:g}: choose binary, linear or "
            "exponential, or scale it to [0, 1]"
        )
    if rule == "binary" and not low < settings.positive_from <= top:
        raise ValueError(
            f"positive_from is {settings.positive_from:g}, but {names} goes from {low:g} to "
            f"{top:g}: choose a value above {low:g} and at most {top:g}, or all labels are equal"
        )
    return Grading(rule, settings.positive_from, float(top))
