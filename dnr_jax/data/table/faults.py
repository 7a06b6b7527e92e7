"""Rules for the values of each kind of column: which are invalid, and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import polars as pl

from dnr_jax.data.direct import LARGEST_SCORE
from dnr_jax.data.table import columns
from dnr_jax.data.table.columns import SPLIT_NAMES


class Fault(NamedTuple):
    """A kind of bad value.

    Attributes:
      column: the column's own name.
      bad: true for rows with a bad value; an expression over the table's own columns.
      expected: what the value should be.
      cure: what to do.
    """

    column: str
    bad: pl.Expr
    expected: str
    cure: str


class Column(NamedTuple):
    """A column to check.

    Attributes:
      name: its own name.
      kind: its type.
      unit: unit of times that are numbers.
    """

    name: str
    kind: pl.DataType
    unit: str

    @property
    def given(self) -> pl.Expr:
        """True for rows that have a value."""
        return pl.col(self.name).is_not_null()

    @property
    def number(self) -> pl.Expr:
        """The values as numbers; missing if they are not numbers."""
        return columns.number(self.name, self.kind)


LATEST = 7_258_118_400 * 10**6  # microseconds: 2200
Rule = Callable[[Column], Iterator[Fault]]


def _missing(expected: str, cure: str) -> Rule:
    """Make the rule that every row has a value."""

    def rule(column: Column) -> Iterator[Fault]:
        yield Fault(column.name, ~column.given, expected, cure)

    return rule


def _finite(expected: str, cure: str) -> Rule:
    """Make the rule that a given value is a finite number."""

    def rule(column: Column) -> Iterator[Fault]:
        bad = column.given & ~column.number.is_finite().fill_null(False)
        yield Fault(column.name, bad, expected, cure)

    return rule


def _not_huge(column: Column) -> Iterator[Fault]:
    expected = f"a score between -{LARGEST_SCORE:g} and {LARGEST_SCORE:g}"
    huge = column.number.abs() > LARGEST_SCORE
    yield Fault(column.name, huge, expected, "Scale the column down, or give ranks.")


def _at_least_0(expected: str, cure: str) -> Rule:
    def rule(column: Column) -> Iterator[Fault]:
        yield Fault(column.name, column.number < 0, expected, cure)

    return rule


def _place(expected: str) -> Rule:
    """Make the rule that a given value is a whole number of at least 1."""

    def rule(column: Column) -> Iterator[Fault]:
        value = column.number
        whole = value.is_finite() & (value == value.floor()) & (value >= 1)
        cure = "Add 1 where places count from 0."
        yield Fault(column.name, column.given & ~whole.fill_null(False), expected, cure)

    return rule


def _identifier(cure: str) -> Rule:
    """Make the rule that a given value can be an id."""

    def rule(column: Column) -> Iterator[Fault]:
        read = columns.identifier(column.name, column.kind)
        yield Fault(column.name, column.given & read.is_null(), "a whole number as id", cure)

    return rule


def _not_empty(cure: str) -> Rule:
    """Make the rule that an id is not empty text."""

    def rule(column: Column) -> Iterator[Fault]:
        if column.kind == pl.String:
            empty = pl.col(column.name).str.strip_chars() == ""
            yield Fault(column.name, empty, "an id", cure)

    return rule


def _propensity(column: Column) -> Iterator[Fault]:
    real = ((column.number > 0) & (column.number <= 1)).fill_null(False)
    expected = "a probability above 0 and at most 1"
    yield Fault(column.name, column.given & ~real, expected, "A missing one counts 1.")


def _exposed(column: Column) -> Iterator[Fault]:
    bad = column.given & columns.flag(column.name, column.kind).is_null()
    cure = "A missing one counts as not shown."
    yield Fault(column.name, bad, "true or false, 1 or 0", cure)


def _split(column: Column) -> Iterator[Fault]:
    bad = columns.split_name(column.name, column.kind).is_null()
    cure = "Rename it, or set ignore to leave the column alone."
    yield Fault(column.name, bad, f"one of {', '.join(SPLIT_NAMES)}", cure)


def _time(column: Column) -> Iterator[Fault]:
    value = columns.time(column.name, column.kind, column.unit)
    cure = "Write ISO times, or seconds or milliseconds since 1970."
    if column.kind == pl.String:  # first, text that is neither a date nor a number
        bad = column.given & value.is_null() & column.number.is_null()
        yield Fault(column.name, bad, "a time", cure)
        bad = value.is_null() & (column.number >= 0)
        expected = "a time in ISO form, as the column is text"
        yield Fault(column.name, bad, expected, "Write seconds and milliseconds as numbers.")
    early = ~(value >= 0).fill_null(False)
    yield Fault(column.name, column.given & early, "a time since 1970", cure)
    late = (value > LATEST).fill_null(False)
    expected = f"a time before 2200, in {column.unit} since 1970"
    yield Fault(column.name, late, expected if column.kind.is_numeric() else "before 2200", cure)


def _vector(column: Column) -> Iterator[Fault]:
    values = columns.numbers(column.name, column.kind)
    bad = ~values.list.eval(pl.element().is_finite().fill_null(False)).list.all()
    cure = "Leave the whole list empty where it is unknown."
    yield Fault(column.name, column.given & bad, "a list of finite numbers, or nothing", cure)
    length = values.list.len()
    uneven = (length < length.max()) | (length == 0)
    expected = "a list as long as the longest, none of them empty"
    yield Fault(column.name, column.given & uneven, expected, cure)


def _numeric(column: Column) -> Iterator[Fault]:
    bad = column.given & (column.number.is_infinite() | column.number.is_null())
    cure = "Leave it empty where it is unknown."
    yield Fault(column.name, bad, "a finite number, or nothing", cure)


_ID = _identifier("Write ids as ints or text.")
_EACH = "Every row needs one: fill it in or drop the row."
_EVERY_ID = (_ID, _missing("an id", _EACH), _not_empty(_EACH))
# By role, in the order in which they are checked.
ROLES: Mapping[str, tuple[Rule, ...]] = {
    "request_id": _EVERY_ID,
    "item_id": _EVERY_ID,
    "user_id": (_ID, _not_empty("Make it null where the user is unknown.")),
    "score": (
        _finite("a finite score", "Drop the row, or score it."),
        _not_huge,
        _missing("a score", "Every candidate needs one: score it or drop the row."),
    ),
    "rank": (
        _place("a whole number, 1 for the first"),
        _missing("a rank", "Every candidate needs one."),
    ),
    "position": (_place("a whole number, 1 for the first, missing for not shown"),),
    "weight": (
        _finite("a finite weight", "A missing one counts 1."),
        _at_least_0("a weight of 0 or more", "0 leaves the candidate unjudged."),
    ),
    "propensity": (_propensity,),
    "exposed": (_exposed,),
    "split": (_split,),
    "timestamp": (_missing("a time", "Every row needs its request's time."), _time),
}
LABEL: tuple[Rule, ...] = (
    _finite("a finite label", "Leave it empty where the candidate was not judged."),
    _at_least_0("a label of 0 or more", "Leave it empty where the candidate was not judged."),
)
# By kind of feature.
FEATURES: Mapping[str, tuple[Rule, ...]] = {
    "id": (_identifier("Declare it numeric, or write it as text."),),
    "bag": (),
    "numeric": (_numeric,),
    "vector": (_vector,),
}


def of(column: Column, rules: Iterable[Rule]) -> Iterator[Fault]:
    """List the possible faults of a column, in the order of the rules."""
    for rule in rules:
        yield from rule(column)
