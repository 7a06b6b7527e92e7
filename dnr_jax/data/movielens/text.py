"""Latin-1 text files as tables of strings, with errors that name file, line and cause."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import polars as pl

_UTF8_MARK, _UTF16_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


def lines(path: Path) -> pl.Series:
    """Read the lines of a Latin-1 file, gzip or plain, without the line ends.

    Raises:
      ValueError: a truncated gzip file, UTF-16, or an empty file.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is a torn gzip file ({error}): download it again") from error
    if content.startswith(_UTF16_MARKS):
        raise ValueError(f"{path} is in UTF-16: save it as plain text")
    # Only "\n" ends a line: str.splitlines would also break at Latin-1 control characters.
    text = content.removeprefix(_UTF8_MARK).decode("latin-1").replace("\r\n", "\n").rstrip("\n")
    if not text.strip():
        raise ValueError(f"{path} is empty: it should hold at least one line")
    return pl.Series("line", text.split("\n"))


def table(path: Path, separator: str, names: list[str]) -> pl.DataFrame:
    """Split each line into the named string columns.

    Raises:
      ValueError: see `lines`; a line with the wrong number of fields.
    """
    found = lines(path)
    # Copies of u.data exist in which an editor turned some tabs into blanks.
    even = found.str.replace_all(r"[ \t]+", "\t") if separator == "\t" else found
    parts = even.str.split(separator)
    wrong = (parts.list.len() != len(names)).to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{path}, line {row + 1}: found {len(parts[row])} fields in {found[row]!r}, expected "
            f"{len(names)} ({', '.join(names[:5])}...) separated by {separator!r}"
        )
    return pl.DataFrame({name: parts.list.get(i) for i, name in enumerate(names)})


def numbers(path: Path, texts: pl.Series, dtype: type[pl.DataType]) -> pl.Series:
    """Parse a string column.

    Raises:
      ValueError: names the first line that is not a number, and the remedy.
    """
    values = texts.cast(dtype, strict=False)
    if not values.null_count():
        return values
    row = int(values.is_null().arg_max() or 0)
    seen = f"{path}, line {row + 1}: found {texts[row]!r} as {texts.name}, expected a number"
    if row == 0 and len(texts) > 1 and values.null_count() == 1:
        raise ValueError(f"{seen}: if line 1 is a header, delete it")
    if values.null_count() == len(values) and texts.name in ("user", "item", "id"):
        raise ValueError(f"{seen}: number the {texts.name}s, and keep the map to their names")
    raise ValueError(seen)
