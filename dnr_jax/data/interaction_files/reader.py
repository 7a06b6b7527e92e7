"""Read a recognised file as a frame of user, item, rating and time, with every value checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from dnr_jax.data.interaction_files.layouts import LAYOUTS, Layout
from dnr_jax.data.interaction_files.recognise import COLUMNS, SEQUENCES, Source, roles
from dnr_jax.data.interaction_files.sequences import read_sequences

ID_NAMES = ("user", "item")
NAIVE = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d")
# A number above the limit is in the finer unit: no usable time is before 1973 or after 5138.
UNITS = (("seconds", 10**11), ("milliseconds", 10**14), ("microseconds", 10**17))


def read(
    source: Source, columns: Mapping[str, str], positive_rating: float
) -> tuple[pl.DataFrame, list[str]]:
    """Read all rows, in the order of the file.

    Returns:
      `user` and `item` (int64, or categorical), `liked` (bool: the rating is at least
      `positive_rating`; only if the file has ratings) and `time` (int64 seconds, else the place in
      the file); and notes for the user.

    Raises:
      ValueError: a damaged file; a missing or invalid id, rating or time, named by file and row.
    """
    if source.layout == SEQUENCES:
        return read_sequences(source.files[0])
    layout = LAYOUTS[source.layout]
    named = roles(source.head, dict(columns)) if source.layout == COLUMNS else dict(layout.columns)
    kinds = {name: _id_kind(layout) for name in ID_NAMES}
    frames = [_file(file, source, named, kinds, positive_rating) for file in source.files]
    return _timed(pl.concat(frames), source.files[0])


def _id_kind(layout: Layout) -> pl.DataType:
    """Choose numbers, or categorical text: a plain text column would take most of the memory."""
    return pl.Int64() if layout.integers else pl.Categorical(pl.Categories.random())


def _file(
    path: Path,
    source: Source,
    named: Mapping[str, str],
    kinds: Mapping[str, pl.DataType],
    positive_rating: float,
) -> pl.DataFrame:
    """Read one file, with ids of the types `kinds`."""
    raw = _scan(path, source, named)
    names = raw.collect_schema().names()
    lost = [name for name in named.values() if not name.isdigit() and name not in names]
    if lost:
        raise ValueError(f"{path} has no column {lost[0]!r}: it has {', '.join(names)}")
    by_place = bool(LAYOUTS[source.layout].form) and not source.head.names
    picked = raw.select(
        pl.col(names[int(name)] if by_place else name).alias(role) for role, name in named.items()
    )
    frame = _collect(picked.select(_typed(picked.collect_schema(), kinds, positive_rating)), path)
    for name in frame.columns:
        _check(path, frame[name], picked, header=bool(source.head.names))
    if not len(frame):
        raise ValueError(f"{path} holds no interaction")
    return frame


def _typed(
    schema: Mapping[str, pl.DataType], kinds: Mapping[str, pl.DataType], positive_rating: float
) -> list[pl.Expr]:
    """Cast a row's fields; values that cannot be cast become null, and `_check` reports them."""
    found = []
    for name, kind in schema.items():
        column = pl.col(name).str.strip_chars() if kind == pl.String else pl.col(name)
        if name == "time":
            found.append(_numbers(column, kind))
        elif name == "rating":
            number = column.cast(pl.Float64, strict=False)
            liked = pl.when(number.is_finite()).then(number >= positive_rating)
            found.append(liked.alias("liked"))
        else:
            whole = column.cast(pl.Int64, strict=False) if kind.is_float() else column
            found.append(_id(whole, kinds[name]))
    return found


def _id(column: pl.Expr, kind: pl.DataType) -> pl.Expr:
    if kind == pl.Int64:
        return column.cast(kind, strict=False)
    text = column.cast(pl.String)
    return pl.when(text != "").then(text).cast(kind)


def _numbers(column: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """Read numeric times unchanged, and dates as microseconds."""
    if kind in (pl.Datetime, pl.Date):
        return column.cast(pl.Datetime("us")).cast(pl.Int64)
    if kind != pl.String:
        return column.cast(pl.Float64).floor().cast(pl.Int64, strict=False)
    number = column.cast(pl.Float64, strict=False).floor().cast(pl.Int64, strict=False)
    text = column.str.strip_suffix("Z")
    dates = [text.str.to_datetime(form, strict=False, time_unit="us") for form in NAIVE]
    return pl.coalesce(number, *(date.cast(pl.Int64) for date in dates))


def _scan(path: Path, source: Source, named: Mapping[str, str]) -> pl.LazyFrame:
    head = source.head
    if head.form == "parquet":
        return pl.scan_parquet(path)
    if head.form == "json":
        return pl.scan_ndjson(path, schema=dict.fromkeys(named.values(), pl.String))
    separator = {"tsv": "\t", "double_colon": ":"}.get(head.form, ",")
    frame = pl.scan_csv(path, has_header=bool(head.names), separator=separator, infer_schema=False)
    if head.form != "double_colon":
        return frame
    return frame.select(frame.collect_schema().names()[::2])  # the others are between two colons


def _collect(frame: pl.LazyFrame, path: Path) -> pl.DataFrame:
    try:
        return frame.collect(engine="streaming")  # text is never held as a whole
    except (pl.exceptions.PolarsError, OSError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read: {reason}") from error


def _check(path: Path, column: pl.Series, raw: pl.LazyFrame, *, header: bool) -> None:
    """Refuse a value that is missing or could not be read, naming the first."""
    if not column.null_count():
        return
    row = int(column.is_null().arg_max() or 0)
    name = "rating" if column.name == "liked" else column.name
    seen = _collect(raw.slice(row, 1), path)[name].item()
    kind = {"rating": "a finite number", "time": "a time", "user": "an id", "item": "an id"}
    raise ValueError(
        f"{path}, line {row + 1 + header}: found {seen!r} as {name}, expected {kind[name]}"
    )


def _timed(frame: pl.DataFrame, path: Path) -> tuple[pl.DataFrame, list[str]]:
    """Bring times to seconds; without any, the place in the file is the time."""
    if "time" not in frame.columns:
        say = f"{path.name} has no times: its rows are taken to be in the order of time"
        return frame.with_row_index("time").with_columns(pl.col("time").cast(pl.Int64)), [say]
    least, most = (int(frame.select(one).item()) for one in (pl.min("time"), pl.max("time")))
    low, high = _unit(least), _unit(most)
    if low != high:
        raise ValueError(
            f"{path} mixes times in {UNITS[low][0]} (as {least}) and in {UNITS[high][0]} (as "
            f"{most}): write all of them in seconds"
        )
    found = [f"{path.name}: times were read as {UNITS[high][0]}"] if high else []
    return frame.with_columns(pl.col("time") // 1000**high) if high else frame, found


def _unit(time: int) -> int:
    return next((n for n, (_, limit) in enumerate(UNITS) if time < limit), len(UNITS) - 1)
