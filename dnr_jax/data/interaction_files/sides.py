"""Read files of item or user features, by raw id."""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from dnr_jax.data.interaction_files.layouts import Side
from dnr_jax.data.interactions import Features

# u.item of MovieLens 100K marks genres by flags in this order.
FLAGS = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


def read_side(path: Path, side: Side, codes: Mapping[Any, int]) -> Features:
    """Read the features of the ids that are keys of `codes`; the first of several values counts.

    Raises:
      ValueError: a file in another format.
    """
    rows = READERS[side.kind](path, side, codes)
    features: Features = {}
    for key, values in rows:
        code = codes.get(key)
        for name, value in values.items():
            if code is not None and value not in (None, ""):
                features.setdefault(name, {})[code] = str(value)
    return features


Rows = Iterator[tuple[Any, dict[str, Any]]]


def _table(path: Path, side: Side, codes: Mapping[Any, int]) -> Rows:
    frame = pl.read_parquet(path) if path.suffix == ".parquet" else _csv(path)
    lost = [column for column in side.columns.values() if column not in frame.columns]
    if lost:
        raise ValueError(f"{path} has no column {lost[0]!r}: it has {', '.join(frame.columns)}")
    numbers = all(isinstance(key, int) for key in islice(codes, 1))
    for row in frame.select(side.columns.values()).rows(named=True):
        values = {name: _first(row[column]) for name, column in side.columns.items()}
        yield _key(values.pop("id"), numbers), values


def _csv(path: Path) -> pl.DataFrame:
    try:
        return pl.read_csv(path, infer_schema=False, separator="\t" if ".tsv" in path.name else ",")
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path} is not a valid CSV file: {str(error).splitlines()[0]}") from error


def _key(value: Any, number: bool) -> Any:
    text = str(value).strip()
    return int(text) if number and text.lstrip("-").isdigit() else text


def _first(value: Any) -> Any:
    """Return the first of several values: in a list, in nested lists, or in text split at bars."""
    while isinstance(value, list | tuple):
        value = value[0] if value else None
    return value.split("|")[0] if isinstance(value, str) else value


def _lines(path: Path, side: Side, codes: Mapping[Any, int]) -> Rows:
    """Read JSON lines, or the Python literals of Amazon's files of 2014 (never evaluated)."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
        for number, line in enumerate(file, 1):
            record = _record(path, number, line)
            if record.get(side.columns["id"]) in codes:
                values = {name: _first(record.get(field)) for name, field in side.columns.items()}
                yield values.pop("id"), values


def _record(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        try:
            found = ast.literal_eval(line)
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"{path}, line {number} is not a record: {line[:80]!r}") from error
    return found


def _flags(path: Path, side: Side, codes: Mapping[Any, int]) -> Rows:
    del side, codes
    for fields in _split(path, "|", 5 + len(FLAGS)):
        genres = [name for name, flag in zip(FLAGS, fields[5:], strict=True) if flag == "1"]
        yield int(fields[0]), {"genre": genres[0] if genres else None}


def _movies_dat(path: Path, side: Side, codes: Mapping[Any, int]) -> Rows:
    del side, codes
    for fields in _split(path, "::", 3):
        yield int(fields[0]), {"genre": fields[2].split("|")[0]}


def _split(path: Path, separator: str, count: int) -> Iterator[list[str]]:
    lines = path.read_bytes().decode("latin-1").replace("\r\n", "\n").rstrip("\n").split("\n")
    for number, line in enumerate(lines, 1):
        fields = line.split(separator)
        if len(fields) != count or not fields[0].isdigit():
            raise ValueError(
                f"{path}, line {number}: found {line[:80]!r}, expected {count} fields between "
                f"{separator!r}, the first one a number"
            )
        yield fields


READERS = {"table": _table, "lines": _lines, "flags": _flags, "movies_dat": _movies_dat}
