"""Compare two rows of a run by request: which requests got better, and which worse."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from dnr_jax.reports import records
from dnr_jax.settings import find


def compare_requests(
    workdir: str | os.PathLike[str], row: str, against: str, metric: str = ""
) -> pl.DataFrame:
    """Compare two rows of a finished run by a metric, averaged over seeds.

    Args:
      workdir: the run folder.
      row: a row of its table, e.g. "dnr_b".
      against: another row, e.g. "retriever".
      metric: a metric of `per_request.parquet`; "" = N@K, by which the table compares.

    Returns:
      `request_id`, each row's metric in a column named after the row, and `difference`, the first
      minus the second; the largest win comes first. Requests that lack a value in any row or seed,
      such as those without a positive, are left out.

    Raises:
      FileNotFoundError: the run has not finished.
      ValueError: there is no such row or metric, or a file is damaged.
    """
    folder = Path(workdir)
    rows, k = records.rows_by_key(folder)
    models = [find("row", key, rows) for key in (row, against)]
    ids, values = records.by_request(folder, metric or f"n@{k}", dict(models))
    one, other = (values[model].mean(0) for model, _ in models)
    frame = {"request_id": ids, row: one, against: other, "difference": one - other}
    return pl.DataFrame(frame).sort("difference", "request_id", descending=[True, False])


def side_by_side(ranked: pl.DataFrame, request: int, names: Sequence[str], k: int) -> pl.DataFrame:
    """Show the first K items of one request as several models rank them.

    Args:
      ranked: candidates with `request_id`, `item_id`, `label` and `NAME_rank` of each model, as of
        `serving.rank_split`.
      request: its number.
      names: of the models, or "retriever".
      k: K >= 1, the length of the lists.

    Returns:
      `rank` from 1, and for each model `NAME` (item) and `NAME_label`.

    Raises:
      ValueError: there is no such request, or no such model among the columns.
    """
    own = ranked.filter(pl.col("request_id") == request)
    if own.is_empty():
        raise ValueError(f"request {request} is not among the {len(ranked)} candidates given")
    known = [name.removesuffix("_rank") for name in ranked.columns if name.endswith("_rank")]
    for name in names:
        find("model", name, dict.fromkeys(known))
    shown = pl.DataFrame({"rank": range(1, min(k, len(own)) + 1)})
    lists = (own.sort(f"{name}_rank").head(k).select("item_id", "label") for name in names)
    renamed = (
        part.rename({"item_id": name, "label": f"{name}_label"})
        for name, part in zip(names, lists, strict=True)
    )
    return pl.concat([shown, *renamed], how="horizontal")
