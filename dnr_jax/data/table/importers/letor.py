"""LETOR and svmlight files: `LABEL qid:QUERY FEATURE:VALUE ... # docid = NAME ...`."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import polars as pl

LINES_AT_ONCE = 20_000
_DOCUMENT = re.compile(r"\b(?:docid|docno|doc)\s*[=:]\s*(\S+)|^\s*(\S+)\s*$")
_MISSING = "NULL"  # in LETOR's language-model features


class _Part(NamedTuple):
    """Some lines: labels, queries ("" = none), documents ("" = none) and features by number."""

    label: list[float]
    query: list[str]
    document: list[str]
    values: dict[int, np.ndarray]


def read_letor(
    path: str | Path,
    *,
    query: str | Path | None = None,
    names: Mapping[int, str] | None = None,
    prefix: str | None = None,
    features: int = 0,
) -> pl.DataFrame:
    """Read a file of judged documents as a log table with numeric features `i_*`.

    A feature that a line leaves out is 0, as the format defines; NULL is missing.

    Args:
      path: the file; may end in `.gz`.
      query: a file of query sizes in order, one number per line (LightGBM's `.query`); None =
        lines have `qid:`.
      names: names of features, by number; others are named by their number.
      prefix: prefix of the query numbers that `query` yields; None = the file's name, which keeps
        the queries of several files distinct.
      features: minimum number of features, so files of one data set have the same columns. Up to
        it, a feature that no line names is 0 everywhere; above it, such a feature has no column.

    Returns:
      `request_id`, `item_id` (the document's name, else query and place), `label` and `i_*`,
      ordered by feature number.

    Raises:
      FileNotFoundError: a file does not exist.
      ValueError: a malformed line, named by file and line; sizes that do not add up.
    """
    path = Path(path)
    with _text(path) as stream:
        parts = [_parse(path, first, lines) for first, lines in _blocks(stream)]
    labels = [value for part in parts for value in part.label]
    if not labels:
        raise ValueError(f"{path} has no rows: there is nothing to read")
    queries = [name for part in parts for name in part.query]
    if query is not None:
        queries = _by_size(
            Path(query), len(labels), f"{path.name}:" if prefix is None else prefix, path
        )
    elif "" in queries:
        raise ValueError(
            f"{path}, line {queries.index('') + 1} has no qid: give the sizes of the queries in a "
            "file, query=..., or write qid:NUMBER after the label"
        )
    documents = [name for part in parts for name in part.document]
    frame = pl.DataFrame({"request_id": queries, "item_id": documents, "label": labels})
    place = pl.int_range(1, pl.len() + 1).over("request_id")
    named = pl.col("item_id") != ""
    own = pl.format("{}-{}", "request_id", place)
    frame = frame.with_columns(item_id=pl.when(named).then("item_id").otherwise(own))
    return frame.with_columns(_features(parts, names or {}, features))


def _text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return open(path, encoding="utf-8-sig")


def _blocks(stream: IO[str]) -> Iterator[tuple[int, list[str]]]:
    first = 1
    while lines := list(islice(stream, LINES_AT_ONCE)):
        yield first, lines
        first += len(lines)


def _parse(path: Path, first: int, lines: list[str]) -> _Part:
    part = _Part([], [], [], {})
    rows: dict[int, list[tuple[int, float]]] = {}
    for number, line in enumerate(lines, first):
        content, _, comment = line.partition("#")
        words = content.split()
        if not words:
            continue
        row = len(part.label)
        try:
            part.label.append(float(words[0]))
            has_query = len(words) > 1 and words[1].startswith("qid:")
            part.query.append(words[1][4:] if has_query else "")
            for word in words[1 + has_query :]:
                name, _, value = word.partition(":")
                number_of = float("nan") if value == _MISSING else float(value)
                rows.setdefault(int(name), []).append((row, number_of))
        except ValueError:
            raise ValueError(
                f"{path}, line {number} is {line.strip()[:60]!r}, expected LABEL qid:QUERY "
                "FEATURE:VALUE ...: is it an svmlight file?"
            ) from None
        found = _DOCUMENT.search(comment)
        part.document.append(next((name for name in found.groups() if name), "") if found else "")
    for feature, cells in rows.items():
        column = np.zeros(len(part.label), np.float32)
        at, values = zip(*cells, strict=True)
        column[list(at)] = values
        part.values[feature] = column
    return part


def _features(parts: list[_Part], names: Mapping[int, str], least: int) -> list[pl.Series]:
    named = {number for part in parts for number in part.values}
    numbers = sorted(named | set(range(1, least + 1)))
    columns = []
    for number in numbers:
        pieces = [part.values.get(number, np.zeros(len(part.label), np.float32)) for part in parts]
        name = f"i_{names.get(number, number)}"
        columns.append(pl.Series(name, np.concatenate(pieces)).fill_nan(None))
    return columns


def _by_size(file: Path, rows: int, prefix: str, path: Path) -> list[str]:
    """Number the queries by their sizes."""
    try:
        sizes = [int(line) for line in file.read_text("utf-8-sig").split()]
    except ValueError as error:
        raise ValueError(f"{file} must hold query sizes, one number per line: {error}") from None
    if sum(sizes) != rows:
        raise ValueError(
            f"{file} counts {sum(sizes)} rows in {len(sizes)} queries, but {path} has {rows}: they "
            "do not belong together"
        )
    return [f"{prefix}{n}" for n, size in enumerate(sizes, 1) for _ in range(size)]
