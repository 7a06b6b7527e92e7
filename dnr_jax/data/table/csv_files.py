"""CSV files: what separates their columns, and where one is not what a CSV file must be."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO

SEPARATORS = (",", "\t", ";", "|")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # how such a file begins
_FIRST_LINE = 2**20  # bytes at most


def separator(file: Path) -> str:
    """Tell what separates the columns of a file, by its first line.

    That is a comma, in `.tsv` a tab, and what else of `SEPARATORS` is most frequent in a line
    without it.

    Raises:
      ValueError: the file is UTF-16, or its first line has a name twice.
      OSError, EOFError: it cannot be read.
    """
    with _opened(file) as stream:
        line = stream.readline(_FIRST_LINE)
    if line.startswith(_UTF16):
        raise ValueError(f"{file} is UTF-16, as its first bytes say: save it as UTF-8")
    text = line.decode("utf-8-sig", errors="replace").rstrip("\r\n")
    usual = "\t" if ".tsv" in file.name.lower() else ","
    found = usual if usual in text else max((usual, *SEPARATORS), key=text.count)
    names = next(csv.reader([text], delimiter=found), [])
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{file} has {names.count(twice[0])} columns {twice[0]}: rename one")
    return found


def fault(file: Path) -> str:
    """Say which row is the first that is no UTF-8, or has more values than names; "" = none."""
    number = 0
    try:
        with _opened(file) as stream:
            rows = csv.reader(_lines(stream), delimiter=separator(file))
            names = next(rows)
            for number, row in enumerate(rows, 1):
                if len(row) > len(names):
                    return (
                        f"{file}, row {number} has {len(row)} values, the first line {len(names)} "
                        "names: quote a value that holds the separator"
                    )
    except UnicodeDecodeError as error:
        seen = error.object[max(0, error.start - 10) : error.start + 10]
        return f"{file}, row {number + 1} is no UTF-8 near {seen!r}: save the file as UTF-8"
    except (OSError, EOFError):
        return ""  # torn: no fault of a row
    return ""


def _opened(file: Path) -> IO[bytes]:
    return gzip.open(file) if file.suffix.lower() == ".gz" else open(file, "rb")  # type: ignore[return-value]


def _lines(stream: IO[bytes]) -> Iterator[str]:
    for line in stream:
        yield line.decode("utf-8")
