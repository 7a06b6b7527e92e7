"""What prepared arrays depend on, hashed: input files, options, and the code that reads them."""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
# Files up to this size enter the fingerprint by content; larger ones by size, date, head and tail.
WHOLE_FILE_BYTES = 64 * 2**20


def fingerprint(recipe: Mapping[str, Any]) -> str:
    """Hash a JSON-able recipe to 16 hex digits."""
    text = json.dumps(recipe, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_signature(path: Path) -> list[Any]:
    """Describe one input file: name, size, and a hash of its content.

    Files above `WHOLE_FILE_BYTES` are hashed by head and tail (1 MiB each) and date instead.
    """
    size = path.stat().st_size
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        if size <= WHOLE_FILE_BYTES:
            digest.update(file.read())
        else:
            digest.update(file.read(2**20))
            file.seek(-(2**20), os.SEEK_END)
            digest.update(file.read() + str(path.stat().st_mtime_ns).encode())
    return [path.name, size, digest.hexdigest()[:16]]


def code_signature(*modules: str) -> str:
    """Hash the code that `modules` run: arrays are rebuilt when it changes, and only then.

    Args:
      modules: dotted names. Their files count, and so do all files of this package that they
        import, directly or indirectly. A name imported from a package counts as its submodule if
        there is one; a package's `__init__` counts if something else is imported from it.
    """
    digest = hashlib.sha256()
    for file in sources(*modules):
        digest.update(str(file.relative_to(PACKAGE)).encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def sources(*modules: str) -> list[Path]:
    """List the files that `code_signature` hashes.

    Raises:
      ValueError: a module that is not of this package.
    """
    found: set[Path] = set()
    waiting = []
    for module in modules:
        file = _file(module)
        if file is None:
            raise ValueError(f"{module} is not a module of {PACKAGE}")
        waiting.append(file)
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _imported(file)
    return sorted(found)


def _imported(file: Path) -> Iterator[Path]:
    """Yield the files of this package that `file` imports, anywhere in it."""
    for name, home in _imports(file.read_bytes()):
        found = _file(name) or _file(home)
        if found is not None:
            yield found


@lru_cache(maxsize=1024)  # data sets share most of their files
def _imports(code: bytes) -> tuple[tuple[str, str], ...]:
    """List the imported names, each with the module that may define it."""
    names: list[tuple[str, str]] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names += [(alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [(f"{node.module}.{alias.name}", node.module) for alias in node.names]
    return tuple(names)


def _file(module: str) -> Path | None:
    """Return the file of a module of this package; None if there is none."""
    top, *parts = module.split(".")
    if top != PACKAGE.name or not all(parts):
        return None
    place = PACKAGE.joinpath(*parts)
    for file in (place.with_suffix(".py") if parts else place, place / "__init__.py"):
        if file.is_file():
            return file
    return None
