"""RecBole's atomic files: a header of `name:type`, fields between tabs."""

from __future__ import annotations

from pathlib import Path

import polars as pl

TYPES = ("token", "token_seq", "float", "float_seq")
# User and item features get the prefixes by which a log table recognises them.
SIDES = {".user": ("user_id", "u_"), ".item": ("item_id", "i_")}


def read_recbole(path: str | Path) -> pl.DataFrame:
    """Read an atomic file, with the types that its header gives.

    Args:
      path: `NAME.inter`, `NAME.user` or `NAME.item`. Features of the last two get the prefixes
        `u_` and `i_`, as in side tables.

    Returns:
      A frame: tokens as text, floats as numbers, sequences as lists of either.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a header without types, or with an unknown one; a value that is not a number.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    frame = pl.read_csv(path, separator="\t", quote_char=None, infer_schema=False)
    columns = []
    for header in frame.columns:
        name, _, kind = header.partition(":")
        if kind not in TYPES:
            raise ValueError(
                f"{path}: the header has {header!r}, expected NAME:TYPE with one of "
                f"{', '.join(TYPES)}: is it an atomic file?"
            )
        columns.append(_typed(path, frame[header], kind).alias(_named(path, name)))
    return frame.select(columns)


def _named(path: Path, name: str) -> str:
    key, prefix = SIDES.get(path.suffix, (name, ""))
    return name if name == key or name.startswith(prefix) else f"{prefix}{name}"


def _typed(path: Path, values: pl.Series, kind: str) -> pl.Series:
    parts = values.str.extract_all(r"[^ ]+") if kind.endswith("_seq") else values
    if kind.startswith("token"):
        return parts
    try:
        return parts.cast(pl.List(pl.Float64) if kind.endswith("_seq") else pl.Float64)
    except pl.exceptions.InvalidOperationError as error:
        raise ValueError(
            f"{path}: column {values.name} has a value that is not a number"
        ) from error
