"""Docstrings here are plain text with `code` and indented equations; this makes RST of them.

Nothing but a backtick has a meaning in a docstring of this project. So every other sign that RST
would read (`*`, `|`, a trailing `_`) is escaped, an indented block is shown as it is, and a list
needs no blank line before it. Classes of settings get their knobs listed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from dnr_jax.settings import Settings

SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields):$")
ITEM = re.compile(r"\s*(?:-|\d+\.) ")
# Code, a mark that a letter follows it, or plain text.
PART = re.compile(r"(`[^`]+`)((?=\w))?|([^`]+|`)")
# What flax adds to the fields of every module.
FLAX_FIELDS = re.compile(r", parent: .*(?=\))")


def setup(app: Any) -> dict[str, Any]:
    """Register the translation, with a low priority number: it runs before napoleon."""
    app.connect("autodoc-process-docstring", _docstring, priority=100)
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True, "version": "1"}


def _docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_rst(lines)
    if isinstance(thing, type) and issubclass(thing, Settings):
        lines += knob_list(thing)


def _signature(
    app: Any, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: Any
) -> tuple[str | None, Any]:
    if isinstance(thing, type) and issubclass(thing, Settings):
        return None, returns  # the list of knobs says more
    return signature and FLAX_FIELDS.sub("", signature), returns


def knob_list(kind: type[Settings]) -> list[str]:
    """List the knobs that a class of settings adds to its bases: default, meaning, range."""
    inherited = {f.name for base in kind.__bases__ for f in _fields(base)}
    lines = [""]
    for field in _fields(kind):
        if field.name not in inherited and "why" in field.metadata:
            why, allowed = field.metadata["why"], field.metadata["allowed"]
            text = escape(f"{why}; {allowed}")
            lines.append(f"- ``{field.name}: {field.type} = {field.default!r}``: {text}")
    return [*lines, ""]


def _fields(kind: type) -> tuple[Any, ...]:
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()


def to_rst(lines: list[str]) -> list[str]:
    """Translate the lines of a cleaned docstring."""
    return [line for block, kind in _blocks(lines) for line in _render(block, kind)]


def _blocks(lines: list[str]) -> Iterator[tuple[list[str], str]]:
    """Cut at blank lines; the kind of a block is section, list, shown or text."""
    block: list[str] = []
    kind = ""
    for line in [*lines, ""]:
        if line.strip():
            block.append(line)
        elif block:
            kind = _kind(block, kind)
            yield block, kind
            block = []


def _kind(block: list[str], before: str) -> str:
    indented = block[0].startswith(" ")
    if SECTION.match(block[0]) or (indented and before == "section"):
        return "section"
    if indented and before != "list":
        return "shown"
    return "list" if any(ITEM.match(line) for line in block) else "text"


def _render(block: list[str], kind: str) -> Iterator[str]:
    if kind == "shown":
        yield from [".. code-block:: text", "", *("   " + line for line in block), ""]
        return
    above = ""
    for line in escape("\n".join(block)).split("\n"):
        if ITEM.match(line) and above and not ITEM.match(above) and not above.startswith(" "):
            yield ""  # a list begins
        yield line
        above = line
    yield ""


def escape(text: str) -> str:
    """Escape what RST would read outside of `code`."""
    return "".join(_part(*match.groups()) for match in PART.finditer(text))


def _part(code: str | None, joined: str | None, plain: str | None) -> str:
    if code is not None:
        # RST ends code at a blank or a full stop only: a letter after it needs an escaped blank.
        return code + "\\ " * (joined is not None)
    return _text(plain or "")


def _text(part: str) -> str:
    escaped = re.sub(r"([\\*|`])", r"\\\1", part)
    return re.sub(r"_(?=\W|$)", r"\\_", escaped)
