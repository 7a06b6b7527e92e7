"""Typed knobs: frozen dataclasses whose fields have a default, a range and a line of explanation.

Whatever can be configured (a model, a noise family, a data set, the training) declares its knobs
once, in its own file:

    @dataclass(frozen=True, kw_only=True)
    class CaserSettings(Trunk):
        window: int = knob(5, "how many of the latest events are read", at_least=1)

Creating an instance checks every type and range, so code that receives a `Settings` need not.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

# The largest int of any knob, as knobs end up in int32.
MOST_INT = 2**31 - 1
HOMES = 2  # sections that a message names, at most, where a misplaced knob exists


class Allowed(NamedTuple):
    """The values that a knob may have; None = no such bound.

    Attributes:
      at_least, above, at_most, below: bounds of a number, or of every number of a tuple.
      one_of: names; () = any.
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    one_of: tuple[str, ...] = ()

    def holds(self, value: Any) -> bool:
        """Return whether one plain value is allowed."""
        if self.one_of:
            return value in self.one_of
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Describe what is allowed: `1 or more`, `above 0 and at most 1`, `one of bce, bpr`."""
        if self.one_of:
            return f"one of {', '.join(self.one_of)}"
        words = [
            *([f"{self.at_least:g} or more"] if self.at_least is not None else []),
            *([f"above {self.above:g}"] if self.above is not None else []),
            *([f"at most {self.at_most:g}"] if self.at_most is not None else []),
            *([f"below {self.below:g}"] if self.below is not None else []),
        ]
        return " and ".join(words) or "a finite number"


def knob(
    default: Any,
    why: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    one_of: Iterable[str] = (),
) -> Any:
    """Declare a field of a `Settings`: its default, a line of explanation, and its allowed values.

    Args:
      default: a bool, int, float, str or tuple of numbers, of the annotated type.
      why: what the knob does, for people who set it.
      at_least: bound of a number, or of each number of a tuple; None = none.
      above: like `at_least`, exclusive.
      at_most: upper bound.
      below: like `at_most`, exclusive.
      one_of: the allowed values of a str.
    """
    allowed = Allowed(at_least, above, at_most, below, tuple(one_of))
    return dataclasses.field(default=default, metadata={"why": why, "allowed": allowed})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all settings; creating one raises `ValueError` for a wrong type or value.

    A subclass may add `check` for conditions on several knobs. Every message begins with a knob's
    name, so that `read` can put the knob's section before it.
    """

    def __post_init__(self) -> None:
        """Check types and ranges, then conditions on several knobs."""
        types = _types(type(self))
        for field in dataclasses.fields(self):
            _check(field, types[field.name], getattr(self, field.name))
        self.check()

    def check(self) -> None:
        """Raise `ValueError` if the knobs do not fit one another."""


S = TypeVar("S", bound=Settings)
T = TypeVar("T")


def read(kind: type[S], values: Mapping[str, Any], place: str) -> S:
    """Make a `kind` from plain values; a knob that is left out has its default.

    Args:
      kind: the settings to make.
      values: by the knob's name; nested settings as nested mappings, tuples also as lists.
      place: path of the settings in the config, for example `config.rerankers.dcdr`.

    Raises:
      ValueError: a knob is unknown (the nearest known one is named), has a wrong type or is out of
        range; the message begins with place and knob.
    """
    types, made = _types(kind), {}
    for name, value in values.items():
        if name not in types:
            raise ValueError(f"{place}: {unknown('knob', name, types)}")
        if is_settings(types[name]) and isinstance(value, Mapping):
            made[name] = read(types[name], value, f"{place}.{name}")
        else:
            made[name] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**made)
    except ValueError as error:
        raise ValueError(f"{place}.{error}") from None


def plain(settings: Settings) -> dict[str, Any]:
    """Return the knobs as nested plain dicts, which `read` accepts."""
    return dataclasses.asdict(settings)


def defaults(kind: type[Settings], *, without: type[Settings] = Settings) -> dict[str, Any]:
    """Return the default of every knob of `kind` that its base `without` does not have."""
    inherited = _types(without)
    return {name: value for name, value in plain(kind()).items() if name not in inherited}


def is_settings(kind: Any) -> bool:
    """Return whether an annotation is a class of settings."""
    return isinstance(kind, type) and issubclass(kind, Settings)


def find(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Look a name up in a table of its kind; `ValueError` names the nearest known one."""
    if name not in table:
        raise ValueError(unknown(kind, name, table))
    return table[name]


def unknown(kind: str, name: str, known: Iterable[str], *, elsewhere: Iterable[str] = ()) -> str:
    """Say that `name` is not a known `kind`, with the nearest known one and all of them.

    Args:
      kind: what the name should be, in words for users.
      name: the given name.
      known: names of that kind.
      elsewhere: other suggestions.
    """
    known = sorted(known)
    near = [repr(one) for one in difflib.get_close_matches(name, known, n=1)]
    meant = " or ".join([*near, *elsewhere])
    hint = f"; did you mean {meant}?" if meant else "."
    return f"there is no {kind} {name!r}{hint} Known: {', '.join(known)}"


def unknown_knob(name: str, section: Iterable[str], config: Mapping[str, Any]) -> str:
    """Say that a section has no knob `name`, and where in the config there is one."""
    homes = sorted(_homes(name, config, "config"), key=lambda home: home.count("."))
    return unknown("knob", name, section, elsewhere=homes[:HOMES])


def _homes(name: str, section: Mapping[str, Any], place: str) -> Iterator[str]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _homes(name, value, f"{place}.{key}")
        elif key == name:
            yield f"{place}.{key}"


def _types(kind: type[Settings]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _check(field: dataclasses.Field[Any], kind: Any, value: Any) -> None:
    if is_settings(kind):
        if not isinstance(value, kind):
            raise ValueError(f"{field.name} is {value!r}: it must be a {kind.__name__}")
        return
    if not _fits(kind, value):
        words = getattr(kind, "__name__", kind) if typing.get_origin(kind) is None else kind
        raise ValueError(f"{field.name} is {value!r}: it must be of type {words}")
    allowed = field.metadata.get("allowed", Allowed())
    for part in value if isinstance(value, tuple) else (value,):
        if not allowed.holds(part):
            raise ValueError(f"{field.name} is {value!r}: it must be {allowed}")
        if kind is int and abs(part) > MOST_INT:
            raise ValueError(f"{field.name} is {value!r}: it must be at most {MOST_INT}")


def _fits(kind: Any, value: Any) -> bool:
    """Return whether a value has an annotated plain type; an int is also a float."""
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        return isinstance(value, tuple) and all(_fits(inner, part) for part in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)
