"""TREC files: a run (`QUERY Q0 DOCUMENT RANK SCORE TAG`) and its judgements, the qrels."""

from __future__ import annotations

from pathlib import Path

import polars as pl

RUN = ("request_id", "Q0", "item_id", "rank", "score", "tag")
QRELS = ("request_id", "iteration", "item_id", "label")


def read_trec(run: str | Path, judgements: str | Path) -> pl.DataFrame:
    """Read a run and its qrels as a log table.

    Args:
      run: a file of lines with six fields.
      judgements: a file of lines with four fields.

    Returns:
      `request_id`, `item_id`, `rank` (from 1, by score, as in trec_eval), `score` and `label`:
      missing if a document was not judged; values below 0 (spam, in some collections) become 0.

    Raises:
      FileNotFoundError: a file does not exist.
      ValueError: a malformed line, named by file and line, or no query in common.
    """
    frame = _read(Path(run), RUN).with_columns(_number(Path(run), "score"))
    judged = read_qrels(judgements)
    if not frame["request_id"].is_in(judged["request_id"].unique().implode()).any():
        raise ValueError(f"{run} and {judgements} have no query in common: check their names")
    frame = frame.sort("request_id", "score", descending=[False, True], maintain_order=True)
    frame = frame.with_columns(rank=pl.int_range(1, pl.len() + 1).over("request_id"))
    joined = frame.join(judged, on=["request_id", "item_id"], how="left", maintain_order="left")
    return joined.select("request_id", "item_id", "rank", "score", "label")


def read_qrels(path: str | Path) -> pl.DataFrame:
    """Read judgements: `request_id`, `item_id`, `label` >= 0; see `read_trec`."""
    path = Path(path)
    frame = _read(path, QRELS).with_columns(_number(path, "label").clip(lower_bound=0))
    return frame.select("request_id", "item_id", "label")


def _read(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    """Split the lines at blanks or tabs."""
    lines = path.read_text("utf-8-sig").splitlines()
    rows = [line.split() for line in lines]
    for number, row in enumerate(rows, 1):
        if row and len(row) != len(columns):
            raise ValueError(
                f"{path}, line {number} is {lines[number - 1][:60]!r}, expected "
                f"{len(columns)} fields: {' '.join(columns)}"
            )
    kept = [row for row in rows if row]
    return pl.DataFrame(kept, schema=dict.fromkeys(columns, pl.String), orient="row")


def _number(path: Path, name: str) -> pl.Expr:
    def read(values: pl.Series) -> pl.Series:
        numbers = values.cast(pl.Float64, strict=False)
        if numbers.null_count():
            place = numbers.is_null().arg_max()
            assert place is not None
            raise ValueError(
                f"{path}, line {place + 1}: {name} is {values[place]!r}, expected a number"
            )
        return numbers

    return pl.col(name).map_batches(read, return_dtype=pl.Float64)
