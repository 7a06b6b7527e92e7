"""A user's table as a lazy frame: Parquet, Arrow or CSV files, or a frame in memory.

Data is read only when requested, in batches, and only the columns in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from dnr_jax.data.table import csv_files

ROW, FILE = "__row__", "__file__"
FORMATS: Mapping[str, tuple[str, ...]] = {
    "Parquet": (".parquet", ".pq"),
    "Arrow": (".arrow", ".feather", ".ipc"),
    "CSV": (".csv", ".csv.gz", ".tsv", ".tsv.gz"),
}
# First and last bytes of a whole file.
MAGIC = {"Parquet": (b"PAR1", b"PAR1"), "Arrow": (b"ARROW1", b"ARROW1")}
# Text that is an int and stays the same when written again: "007" is a name, not a number.
INT, DIGITS = r"^(0|-?[1-9][0-9]*)$", r"^[+-]?[0-9]+$"
_PARSED = pl.exceptions.ComputeError
_BROKEN = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


class Source(NamedTuple):
    """A table to read.

    Attributes:
      frame: its columns, and `ROW` (uint32, from 0 over all files) and `FILE` (text).
      types: type of each column; in text files, a type that fits all of its values.
      files: the files it is read from; () = a frame in memory.
    """

    frame: pl.LazyFrame
    types: dict[str, pl.DataType]
    files: tuple[Path, ...]

    @property
    def place(self) -> str:
        """The table's name in messages."""
        if not self.files:
            return "the table"
        more = f" (and {len(self.files) - 1} more files)" if len(self.files) > 1 else ""
        return f"{self.files[0]}{more}"


def open_table(given: Any) -> Source:
    """Open a path, or a frame of polars, pandas or pyarrow.

    Args:
      given: a file; a folder whose files, at any depth, form one table (folder names such as
        `split=train/` are columns); or a frame.

    Raises:
      FileNotFoundError: there is no such file or folder, or the folder holds no table.
      ValueError: files of several formats or with different columns, an empty or cut-off file.
      TypeError: a frame of an unknown kind.
    """
    if not isinstance(given, str | Path):
        return _in_memory(given)
    path = Path(given).expanduser()
    kind, files = find_files(path)
    for file in files:
        _check_whole(file, kind)
    return {"Parquet": _parquet, "Arrow": _arrow, "CSV": _csv}[kind](files)


def find_files(path: Path) -> tuple[str, list[Path]]:
    """List the files of a table, and name their format; see `open_table`."""
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    below = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = [f for f in below if f.is_file() and not f.name.startswith((".", "_"))]
    by_format = {kind: [f for f in files if _is(f, kind)] for kind in FORMATS}
    found = [kind for kind, some in by_format.items() if some]
    if not found:
        known = ", ".join(suffix for suffixes in FORMATS.values() for suffix in suffixes)
        raise FileNotFoundError(f"{path} holds no table: its name must end in one of {known}")
    if len(found) > 1:
        raise ValueError(f"{path} holds {' and '.join(found)} files: keep one format in a folder")
    return found[0], by_format[found[0]]


def _is(file: Path, kind: str) -> bool:
    return file.name.lower().endswith(FORMATS[kind])


def _check_whole(file: Path, kind: str) -> None:
    size = file.stat().st_size
    if size == 0:
        raise ValueError(f"{file} is empty (0 bytes): write it again, or remove it")
    if kind not in MAGIC:
        return
    first, last = MAGIC[kind]
    with open(file, "rb") as stream:
        head = stream.read(len(first))
        stream.seek(-min(len(last), size), 2)
        tail = stream.read()
    if (head, tail) != (first, last):
        raise ValueError(
            f"{file} is not a complete {kind} file: it begins with {head!r} and ends with "
            f"{tail!r}, not {first!r} and {last!r}; it was cut off or is something else: write it "
            "again"
        )


def _parquet(files: list[Path]) -> Source:
    _check_alike(files, pl.read_parquet_schema)
    frame = pl.scan_parquet(
        files, hive_partitioning=True, row_index_name=ROW, include_file_paths=FILE
    )
    return Source(frame, _types(frame, files), tuple(files))


def _arrow(files: list[Path]) -> Source:
    _check_alike(files, pl.read_ipc_schema)
    frame = pl.scan_ipc(files, hive_partitioning=True, row_index_name=ROW, include_file_paths=FILE)
    return Source(frame, _types(frame, files), tuple(files))


def _csv(files: list[Path]) -> Source:
    """Read everything as text and infer types from all rows: a guess from a few can be wrong."""
    separators = {_separator(file) for file in files}
    if len(separators) > 1:
        raise ValueError(
            f"{files[0].parent} holds files whose columns are separated by "
            f"{' and '.join(map(repr, sorted(separators)))}: keep one of them"
        )

    scan = partial(pl.scan_csv, separator=min(separators), infer_schema=False)
    _check_alike(files, lambda file: scan(file).collect_schema())
    frame = scan(files, row_index_name=ROW, include_file_paths=FILE)
    types = _types(frame, files)
    found = _text_types(frame, list(types), tuple(files))
    _check_lengths(frame.select(list(types)[-1]), files)
    typed = frame.with_columns(
        pl.col(name).str.strip_chars().cast(kind)
        for name, kind in found.items()
        if kind != pl.String
    )
    return Source(typed, found, tuple(files))


def _separator(file: Path) -> str:
    try:
        found = csv_files.separator(file)
        csv_files.check(file, found)
        return found
    except (OSError, EOFError) as error:
        raise unreadable([file], error) from error


def _check_lengths(last: pl.LazyFrame, files: list[Path]) -> None:
    """Refuse rows that end early, which would be read as having missing values."""
    if collect(last.null_count(), files).item():
        for file in files:
            csv_files.check_lengths(file)


def _text_types(
    frame: pl.LazyFrame, names: list[str], files: tuple[Path, ...]
) -> dict[str, pl.DataType]:
    """Find the narrowest of int, float and text that fits all values of each column."""
    tests: list[pl.Expr] = []
    for name in names:
        value = pl.col(name).str.strip_chars()
        whole = value.str.contains(INT) & value.cast(pl.Int64, strict=False).is_not_null()
        name_like = value.str.contains(DIGITS) & ~whole  # digits that are not an int64
        number = value.cast(pl.Float64, strict=False).is_not_null() & ~name_like
        tests += [
            (whole | value.is_null()).all().alias(f"int {name}"),
            (number | value.is_null()).all().alias(f"float {name}"),
            value.is_not_null().any().alias(f"any {name}"),
        ]
    row = collect(frame.select(tests), files).row(0, named=True)
    return {
        name: (
            pl.String()
            if not (row[f"any {name}"] and row[f"float {name}"])
            else pl.Int64()
            if row[f"int {name}"]
            else pl.Float64()
        )
        for name in names
    }


def _in_memory(given: Any) -> Source:
    if isinstance(given, pl.LazyFrame):
        frame = given
    elif isinstance(given, pl.DataFrame):
        frame = given.lazy()
    elif hasattr(given, "__arrow_c_stream__"):
        import pyarrow as pa

        # Through pyarrow, which reads a NaN of pandas as a missing value.
        frame = pl.DataFrame(pl.from_arrow(pa.table(given))).lazy()
    else:
        raise TypeError(
            f"a table is a path or a frame of polars, pandas or pyarrow, not a {type(given)}"
        )
    _check_names(frame.collect_schema(), "the table")
    frame = frame.with_row_index(ROW).with_columns(pl.lit("").alias(FILE))
    return Source(frame, _types(frame, []), ())


def _types(frame: pl.LazyFrame, files: list[Path]) -> dict[str, pl.DataType]:
    try:
        schema = frame.collect_schema()
    except _BROKEN as error:
        raise unreadable(files, error) from error
    return {name: kind for name, kind in schema.items() if name not in (ROW, FILE)}


def _check_names(names: Iterable[str], place: Path | str) -> None:
    for name in {ROW, FILE}.intersection(names):
        raise ValueError(f"{place} has a column {name!r}, which is a reserved name: rename it")


def _check_alike(files: list[Path], read: Callable[[Path], Mapping[str, Any]]) -> None:
    first: dict[str, Any] | None = None
    for file in files:
        try:
            found = dict(read(file))
        except _BROKEN as error:
            raise unreadable([file], error) from error
        _check_names(found, file)
        first = found if first is None else first
        differing = [n for n in {**first, **found} if first.get(n) != found.get(n)]
        if differing:
            name = differing[0]
            raise ValueError(
                f"{file}: column {name} is {found.get(name, 'absent')}, but in {files[0]} it is "
                f"{first.get(name, 'absent')}: the files of one table need the same columns"
            )


def collect(frame: pl.LazyFrame, files: Sequence[Path] = ()) -> pl.DataFrame:
    """Run a query in batches; raise `ValueError` if files cannot be read."""
    try:
        return frame.collect(engine="streaming")
    except _BROKEN as error:
        raise unreadable(files, error) from error


def unreadable(files: Sequence[Path], error: BaseException) -> ValueError:
    """Make the error that names the files, and for CSV the row, and says why reading failed."""
    for file in files:
        said = csv_files.fault(file) if _is(file, "CSV") and isinstance(error, _PARSED) else ""
        if said:
            return ValueError(said)
    named = f"{files[0]}{' or one of its neighbours' if len(files) > 1 else ''}"
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ValueError(f"{named if files else 'the table'} cannot be read: {reason}; write it again")


def locate(source: Source, row: int) -> str:
    """Say where row `row` (from 0 over all files) is: `FILE, row 17`, counting from 1."""
    if len(source.files) <= 1:
        return f"{source.place}, row {row + 1}"
    starts = source.frame.select(ROW, FILE).group_by(FILE).agg(pl.col(ROW).min())
    before = collect(starts.filter(pl.col(ROW) <= row), source.files).sort(ROW)
    file, start = before[FILE][-1], before[ROW][-1]
    return f"{file}, row {row - start + 1}"
