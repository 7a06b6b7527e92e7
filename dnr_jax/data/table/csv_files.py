"""CSV files: find the column separator, and say where a file is malformed."""

from __future__ import annotations

import contextlib
import csv
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

SEPARATORS = (",", "\t", ";", "|")
_QUOTED = re.compile('"[^"]*"')
_QUOTES = 'close each quote, and write one that is part of a value as "" within quotes'
_LINE = 2**20  # bytes of the first and of the last line, at most


def separator(file: Path) -> str:
    """Find the column separator of a file from its first line.

    It is a comma, or a tab in `.tsv`. If the line has none, it is the most frequent of
    `SEPARATORS`. Quoted text does not count.

    Raises:
      ValueError: the file is not UTF-8, or its lines end in CR alone.
      OSError, EOFError: it cannot be read.
    """
    bare = _QUOTED.sub("", _first_line(file))
    usual = "\t" if ".tsv" in file.name.lower() else ","
    return usual if usual in bare else max((usual, *SEPARATORS), key=bare.count)


def check(file: Path, separator: str) -> None:
    """Check the first and the last line of a file.

    Raises:
      ValueError: the first has a name twice, or the last has fewer values than there are names.
      OSError, EOFError: it cannot be read.
    """
    names = next(csv.reader([_first_line(file)], delimiter=separator), [])
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{file} has {names.count(twice[0])} columns {twice[0]!r}: rename one")
    last = _last_line(file)
    values = last.count(separator) + 1
    if last and '"' not in last and values < len(names):  # not part of a value
        raise ValueError(
            f"{file} ends with {last[-60:]!r}, {values} values of {len(names)}: it was cut off; "
            "write it again"
        )


def fault(file: Path) -> str:
    """Describe the first row that cannot be parsed; "" = none found, as in a cut-off file.

    Such a row is not UTF-8, has more values than there are names, or has a misplaced quote.
    """
    number, lone = 0, 0
    try:
        for number, row, names in _rows(file):
            if len(row) > names:
                cure = "quote a value that holds the separator"
                return f"{file}, row {number} {_unequal(row, names)}: {cure}"
            lone = lone or number * any(value.count('"') % 2 for value in row)
    except UnicodeDecodeError as error:
        seen = error.object[max(0, error.start - 10) : error.start + 10]
        return f"{file}, row {number + 1} is not UTF-8 near {seen!r}: save the file as UTF-8"
    except csv.Error:
        lone = number + 1
    except (OSError, EOFError):
        return ""
    return f"{file}, row {lone} has a quote out of place: {_QUOTES}" if lone else ""


def check_lengths(file: Path) -> None:
    """Check the number of values in each row of a file that can be parsed.

    Raises:
      ValueError: a row has fewer values than names, so its last ones would seem missing.
    """
    with contextlib.suppress(csv.Error):  # what its parser took, as a value of 200,000 characters
        for number, row, names in _rows(file):
            if 0 < len(row) < names:
                cure = "write each value, also an empty one"
                raise ValueError(f"{file}, row {number} {_unequal(row, names)}: {cure}")


def _rows(file: Path) -> Iterator[tuple[int, list[str], int]]:
    """Iterate over the number (from 1) and values of each row, and the count of names."""
    with _opened(file) as stream:
        rows = csv.reader(_lines(stream), delimiter=separator(file), strict=True)
        names = len(next(rows))
        for number, row in enumerate(rows, 1):
            yield number, row, names


def _unequal(row: list[str], names: int) -> str:
    return f"has {len(row)} values, the first line {names} names"


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
        raise ValueError(f"{file}: {line[:60]!r} is not UTF-8: save the file as UTF-8") from None


def _last_line(file: Path) -> str:
    """Return the last line of a plain file; "" if it is the only one, zipped, or very long."""
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
