"""Sphinx configuration: `sphinx-build -W -b html docs docs/_build`."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "docs" / "_extensions"), str(ROOT)]

import dnr_jax  # noqa: E402  of this tree, not of another one that is installed

project = "dnr_jax"
author = copyright = "The dnr_jax authors"
version = release = dnr_jax.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "models",
    "plain_docstrings",
    "quick_references",
    "rooms",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"dnr_jax {release}"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

toc_object_entries = False  # a thousand functions are too many for a table of contents
default_role = "code"  # `x` in a docstring is code
autodoc_member_order = "bysource"
autodoc_use_type_comments = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Types are named as in the code: some names (`Entry`, `Encoded`) live in two rooms.
suppress_warnings = ["ref.python"]
