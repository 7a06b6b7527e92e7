"""The directive `room`: a page of the API reference for a package and all modules inside it."""

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
    """Register the directive."""
    app.add_directive("room", Room)
    return {"parallel_read_safe": True, "version": "1"}
