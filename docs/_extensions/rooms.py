"""Directives of the API reference.

`room` documents a package and all modules inside it, `face` lists the public names of a module.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles


class Room(SphinxDirective):
    """Document the module that the argument names, and every module inside it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a section for each module."""
        text = [line for module in modules(self.arguments[0]) for line in section(module)]
        sections = nodes.section(document=self.state.document)
        nested_parse_with_titles(self.state, StringList(text, self.arguments[0]), sections)
        return sections.children


class Face(SphinxDirective):
    """List the public names of the module that the argument names, and where each is defined."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a list of names."""
        module = importlib.import_module(self.arguments[0])
        text = [
            f"- ``{self.arguments[0]}.{name}``: {home(module, name)}" for name in module.__all__
        ]
        box = nodes.container(document=self.state.document)
        self.state.nested_parse(StringList(text, self.arguments[0]), 0, box)
        return box.children


def home(module: Any, name: str) -> str:
    """Refer to the place where a public name is documented."""
    thing = getattr(module, name)
    if hasattr(thing, "__qualname__"):
        return f":py:obj:`{thing.__module__}.{thing.__qualname__}`"
    return f"the table of {', '.join(f'``{key}``' for key in thing)}"


def section(module: str) -> list[str]:
    """Write the lines of one module's section."""
    directive = [f".. automodule:: {module}", "   :members:", "   :ignore-module-all:"]
    return [module, "-" * len(module), "", *directive, ""]


def modules(name: str) -> list[str]:
    """Name a module and, if it is a package, every module inside it, in alphabetical order."""
    module = importlib.import_module(name)
    inside = [info.name for info in pkgutil.iter_modules(getattr(module, "__path__", []))]
    return [name, *(m for inner in inside for m in modules(f"{name}.{inner}"))]


def setup(app: Any) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("room", Room)
    app.add_directive("face", Face)
    return {"parallel_read_safe": True, "version": "1"}
