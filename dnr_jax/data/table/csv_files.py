"""CSV files: what separates their columns, and where one is not what a CSV file must be."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

SEPARATORS = (",", "\t", ";", "|")
_QUOTED = re.compile('"[^"]*"')
_LINE = 2**20  # bytes of the first and of the last line, at most


def separator(file: Path) -> str:
    """Tell what separates the columns of a file, by its first line.

    That is a comma, in `.tsv` a tab, and what else of `SEPARATORS` is most frequent in a line
    without it; what is quoted does not count.

    Raises:
      ValueError: the file is no UTF-8, or its lines end in CR alone.
      OSError, EOFError: it cannot be read.
    """
    bare = _QUOTED.sub("", _first_line(file))
    usual = "\t" if ".tsv" in file.name.lower() else ","
    return usual if usual in bare else max((usual, *SEPARATORS), key=bare.count)


def check(file: Path, separator: str) -> None:
    """Look at the first and the last line of a file.

    Raises:
      ValueError: the first has a name twice, or the last has fewer values than that has names.
      OSError, EOFError: it cannot be read.
    """
    names = next(csv.reader([_first_line(file)], delimiter=separator), [])
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{file} has {names.count(twice[0])} columns {twice[0]!r}: rename one")
    last = _last_line(file)
    values = last.count(separator) + 1
    if last and '"' not in last and values < len(names):  # no part of a value
        raise ValueError(
            f"{file} ends with {last[-60:]!r}, {values} values of {len(names)}: it was cut off; "
            "write it again"
        )


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
    except (OSError, EOFError, csv.Error):
        return ""  # torn: no fault of a row
    return ""


def _first_line(file: Path) -> str:
    with _opened(file) as stream:
        line = stream.readline(_LINE).rstrip(b"\r\n")
    if line.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in line:
        raise ValueError(f"{file} is UTF-16, as its first bytes say: save it as UTF-8")
    if b"\r" in line:
        raise ValueError(f"{file} has lines that end in CR alone: save it with LF or CRLF")
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{file}: {line[:60]!r} is no UTF-8: save the file as UTF-8") from None


def _last_line(file: Path) -> str:
    """Return the last line of a plain file; "" = it is the only one, zipped, or very long."""
    if _zipped(file):
        return ""
    with open(file, "rb") as stream:
        stream.seek(max(0, file.stat().st_size - _LINE))
        lines = stream.read().rstrip(b"\r\n").split(b"\n")
    return lines[-1].decode(errors="replace").rstrip("\r") if len(lines) > 1 else ""


def _zipped(file: Path) -> bool:
    return file.suffix.lower() == ".gz"


def _opened(file: Path) -> IO[bytes]:
    return gzip.open(file) if _zipped(file) else open(file, "rb")  # type: ignore[return-value]


def _lines(stream: IO[bytes]) -> Iterator[str]:
    for line in stream:
        yield line.decode("utf-8")
