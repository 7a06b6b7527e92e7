"""Knobs on the command line: `--set KNOB=VALUE`, with the value read as the knob's type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

HOME = "data"  # the section of a knob given without one
TOP = ("seed",)  # knobs outside any section


def changes(pairs: Iterable[str], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Read pairs such as `split_by=user` or `reranker.width=64` into nested plain data.

    Args:
      pairs: a knob without a section is in `HOME`, or one of `TOP`.
      usual: the whole config at its defaults. A value is read as the type of its default. It stays
        text if that fails or the knob does not exist; the reader of the config reports this.

    Raises:
      ValueError: a pair has no equals sign.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"--set is {pair!r}: write KNOB=VALUE, as in split_by=user")
        *sections, name = path.split(".") if "." in path or path in TOP else (HOME, path)
        place, default = found, usual
        for section in sections:
            place = place.setdefault(section, {})
            default = default.get(section, {}) if isinstance(default, Mapping) else {}
        place[name] = _value(text, default.get(name) if isinstance(default, Mapping) else None)
    return found


def _value(text: str, usual: Any) -> Any:
    if isinstance(usual, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        if isinstance(usual, tuple):
            return tuple(float(part) for part in text.split(",") if part.strip())
        return type(usual)(text) if isinstance(usual, int | float) else text
    except ValueError:
        return text
