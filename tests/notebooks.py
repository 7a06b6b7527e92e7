"""Executes a notebook's cells in this process: what a user's kernel would do, without a kernel."""

import json
import re
import shlex

from dnr_jax import cli

COMMAND = re.compile(r"^!dnr-jax (.*)$", re.M)


def cells(path):
    """Return the sources of the code cells."""
    book = json.loads(path.read_text())
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]


def execute(path):
    """Run all cells in one namespace, and `!dnr-jax ...` as the program itself; return the names.

    In a command `{NAME}` stands for the value of NAME, as in a notebook.
    """
    names = {"__name__": "__main__", "_call": _call}
    for number, source in enumerate(cells(path)):
        plain = COMMAND.sub(lambda found: f"_call(f{found[1]!r})", source)
        exec(compile(plain, f"{path.name}, code cell {number}", "exec"), names)
    return names


def _call(arguments):
    failed = cli.program.main(shlex.split(arguments), "dnr-jax", standalone_mode=False)
    assert not failed, f"dnr-jax {arguments} ended with {failed}"
