"""The directive `models`: a section for every reranker, made of its module's docstring."""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles

from dnr_jax import rerankers


class Models(SphinxDirective):
    """Write the sections in the order of their titles; the page is in Markdown."""

    def run(self) -> list[nodes.Node]:
        """Return a section for each model."""
        names = [info.name for info in pkgutil.iter_modules(rerankers.__path__)]
        titled = sorted((title(f"{rerankers.__name__}.{name}"), name) for name in names)
        text = [line for head, name in titled for line in section(head, name)]
        sections = nodes.section(document=self.state.document)
        nested_parse_with_titles(self.state, StringList(text, "models"), sections)
        return sections.children


def title(module: str) -> str:
    """Take a model's name from the first line of its module's docstring."""
    return re.split("[:;]", importlib.import_module(module).__doc__ or module)[0]


def section(head: str, name: str) -> list[str]:
    """Write the lines of one model's section."""
    module = f"{rerankers.__name__}.{name}"
    docstring = ["```{eval-rst}", f".. automodule:: {module}", "   :no-index:", "```"]
    return [f"### {head}", "", f"In `{name}`.", "", *docstring, ""]


def setup(app: Any) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("models", Models)
    return {"parallel_read_safe": True, "version": "1"}
