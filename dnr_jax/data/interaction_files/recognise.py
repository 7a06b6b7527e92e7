"""Find the files that hold the interactions, and their published format."""

from __future__ import annotations

import fnmatch
import gzip
import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from dnr_jax.data.interaction_files.layouts import ALIASES, LAYOUTS, Head

HEAD_BYTES = 1 << 20  # of the first lines: a review may be long
SUFFIXES = (".csv", ".tsv", ".dat", ".data", ".txt", ".json", ".jsonl", ".ndjson", ".parquet")
BESIDE = (
    *("movies.*", "users.*", "u.*", "meta_*", "links.csv", "tags.*", "genome-*"),
    *("readme*", "license*", "checksums*"),
)
INTERACTIONS = ("u.data",)  # matches BESIDE by its name
COLUMNS, SEQUENCES = "columns", "sequences"


class Source(NamedTuple):
    """The files to read.

    Attributes:
      layout: a name in `layouts.LAYOUTS`.
      files: one file, or the parts of a table with named columns.
      head: the beginning of the first file.
    """

    layout: str
    files: tuple[Path, ...]
    head: Head


def recognise(path: Path, layout: str, columns: dict[str, str]) -> Source:
    """Find the file of interactions at `path`, and its format.

    Args:
      path: a file, or a folder that holds one data set.
      layout: the format that it must have; "auto" = any.
      columns: the user's own names by role, for layout "columns".

    Raises:
      FileNotFoundError: no such path, or no readable file in it.
      ValueError: the format is unknown or not the given one, or several files are possible.
    """
    files = _files(path)
    heads = {file: read_head(file) for file in files}
    found = {file: _layout(head, layout, columns) for file, head in heads.items()}
    chosen = _one(path, {file: name for file, name in found.items() if name}, heads)
    if chosen is None:
        raise ValueError(_unknown(path, heads))
    if layout not in ("auto", chosen.layout):
        seen, meant = LAYOUTS[chosen.layout], LAYOUTS[layout]
        raise ValueError(
            f"config.data.layout is {layout} ({meant.about}: {meant.files}), but {chosen.files[0]} "
            f"is {chosen.layout} ({seen.about}): it begins with {_beginning(chosen.head)}. Set "
            f"data.layout={chosen.layout}, or get the other files from {meant.source}"
        )
    return chosen


def read_head(path: Path) -> Head:
    """Read the beginning of a file.

    Raises:
      ValueError: a damaged or empty file, UTF-16, or a first line that cannot be read.
    """
    if path.suffix == ".parquet":
        try:
            return Head("parquet", tuple(pl.read_parquet_schema(path)), ())
        except (pl.exceptions.PolarsError, OSError) as error:
            raise ValueError(f"{path} cannot be read ({error}): get it again") from error
    lines = _first_lines(path)
    if lines[0].lstrip().startswith("{"):
        return Head("json", tuple(_record(path, lines[0])), ())
    if "::" in lines[0]:
        return Head("double_colon", (), tuple(lines[0].split("::")))
    for form, separator in (("tsv", "\t"), ("csv", ",")):
        if separator in lines[0]:
            fields = tuple(field.strip().strip('"') for field in lines[0].split(separator))
            named = not any(_is_number(field) for field in fields)
            return Head(form, fields if named else (), () if named else fields)
    return Head("blanks", (), tuple(lines[0].split()))


def roles(head: Head, columns: dict[str, str]) -> dict[str, str]:
    """Map roles to field names: the user's own, else customary ones; some roles may be absent."""
    plain = {name.lower().replace("_", "").replace(" ", ""): name for name in head.names}
    customary = {
        role: next((plain[alias] for alias in aliases if alias in plain), "")
        for role, aliases in ALIASES.items()
    }
    return {role: name for role, name in (customary | columns).items() if name}


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"no such path: {path}")
    if path.is_file():
        return [path]
    every = [p for p in sorted(path.iterdir()) if p.is_file() and p.stat().st_size]
    files = [p for p in every if _suffix(p) in SUFFIXES and not _beside(p.name)]
    if not files:
        raise FileNotFoundError(
            f"folder {path} holds no file of interactions ({', '.join(SUFFIXES)}, also as .gz); it "
            f"holds {[p.name for p in every][:8]}"
        )
    return files


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def _beside(name: str) -> bool:
    low = name.lower()
    return low not in INTERACTIONS and any(fnmatch.fnmatch(low, form) for form in BESIDE)


def _layout(head: Head, wanted: str, columns: dict[str, str]) -> str | None:
    named = roles(head, columns)
    table = COLUMNS if {"user", "item"} <= set(named) else None
    if columns or wanted == COLUMNS:
        return table
    return next((name for name, one in LAYOUTS.items() if one.matches(head)), table)


def _one(path: Path, found: dict[Path, str], heads: dict[Path, Head]) -> Source | None:
    """Prefer a published format to a table with named columns; only a table may have parts."""
    published = {file: name for file, name in found.items() if name != COLUMNS}
    chosen = published or found
    if not chosen:
        return None
    first = next(iter(chosen))
    parts = {heads[file] for file in chosen}
    if len(chosen) > 1 and (published or len(parts) > 1):
        raise ValueError(
            f"{path} holds several files of interactions, {', '.join(f.name for f in chosen)}: "
            "give the path of one file"
        )
    return Source(chosen[first], tuple(chosen), heads[first])


def _first_lines(path: Path) -> list[str]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            start = file.read(HEAD_BYTES)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is a torn gzip file ({error}): get it again") from error
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path} is in UTF-16: save it as UTF-8")
    lines = start.decode("utf-8-sig", "replace").splitlines()
    if not lines or not lines[0].strip():
        raise ValueError(f"{path} is empty, or begins with an empty line")
    return lines


def _record(path: Path, line: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise ValueError(
            f"{path}, line 1 is not JSON ({error}): write one record per line"
        ) from error
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _beginning(head: Head) -> str:
    return (
        f"the names {', '.join(head.names)}" if head.names else f"the row {', '.join(head.first)}"
    )


def _unknown(path: Path, heads: dict[Path, Head]) -> str:
    seen = "; ".join(f"{file.name} begins with {_beginning(head)}" for file, head in heads.items())
    known = "; ".join(f"{name} ({one.about})" for name, one in LAYOUTS.items())
    return (
        f"{path}: no interactions file has a known format. {seen[:600]}. Name the "
        "columns, as in --columns user=WHO,item=WHAT,rating=STARS,time=WHEN (in a config, "
        f"config.data.columns); known formats: {known}"
    )
