"""From a flat section of a config, which holds the knobs of many things, to the settings of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from dnr_jax.settings import Settings, read

S = TypeVar("S", bound=Settings)


def pick(kind: type[S], section: str, *values: Mapping[str, Any]) -> S:
    """Make a `kind` of those knobs of `values`, the later ones winning, that it has.

    Raises:
      ValueError: a wrong type or a value out of range; the message begins with the knob's place.
    """
    names = {field.name for field in dataclasses.fields(kind)}
    known = {n: v for part in values for n, v in part.items() if n in names}
    return read(kind, known, f"config.{section}")
