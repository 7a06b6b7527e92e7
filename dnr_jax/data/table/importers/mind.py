"""News impressions: MIND's and EB-NeRD's lists of shown articles, and the clicks on them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from dnr_jax.data.table.reader import collect, find_files, open_table

BEHAVIORS = ("request_id", "user_id", "time", "history", "shown")
NEWS = ("item_id", "i_category", "i_subcategory", "title", "abstract", "url", "in_title", "in_text")
TIME = "%m/%d/%Y %I:%M:%S %p"
# EB-NeRD's names of request and user features.
EBNERD = {"device_type": "c_device", "gender": "u_gender", "age": "u_age", "postcode": "u_postcode"}


def read_mind(folder: str | Path, *, history: int = 50) -> pl.DataFrame:
    """Read a folder of MIND (`behaviors.tsv`, `news.tsv`) as a log table.

    An impression is not in display order, so there is no position.

    Args:
      folder: the folder of one split.
      history: number of clicked articles kept, the latest.

    Returns:
      `request_id`, `user_id`, `timestamp`, `item_id`, `label`, `history`, `i_category` and
      `i_subcategory`.

    Raises:
      FileNotFoundError: a file does not exist.
      ValueError: a line has the wrong number of fields, an impression without labels (MIND's test
        set has none), or a malformed time.
    """
    folder = Path(folder)
    events = _tsv(folder / "behaviors.tsv", BEHAVIORS)
    shown = events.with_columns(
        timestamp=pl.col("time").str.to_datetime(TIME, strict=True),
        history=pl.col("history").fill_null("").str.extract_all(r"\S+").list.tail(history),
        shown=pl.col("shown").str.extract_all(r"\S+"),
    ).explode("shown")
    clicked = pl.col("shown").str.extract(r"-([01])$")
    rows = shown.with_columns(
        item_id=pl.col("shown").str.replace(r"-[01]$", ""), label=clicked.cast(pl.Float64)
    )
    if rows["label"].null_count():
        lacking = rows.filter(pl.col("label").is_null())["shown"][0]
        raise ValueError(
            f"{folder / 'behaviors.tsv'} has {lacking!r} in an impression, expected an article "
            "with its click, as N123-0: MIND's own test set has no labels, use its other ones"
        )
    articles = _tsv(folder / "news.tsv", NEWS).select("item_id", "i_category", "i_subcategory")
    wanted = ["request_id", "user_id", "timestamp", "item_id", "label", "history"]
    return rows.select(wanted).join(articles, on="item_id", how="left", maintain_order="left")


def _tsv(path: Path, names: tuple[str, ...]) -> pl.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: give a folder of MIND with both files")
    schema = dict.fromkeys(names, pl.String)
    try:
        return pl.read_csv(path, separator="\t", has_header=False, quote_char=None, schema=schema)
    except pl.exceptions.PolarsError as error:
        raise ValueError(
            f"{path}: expected {len(names)} fields between tabs: {str(error).splitlines()[0]}"
        ) from error


def read_ebnerd(folder: str | Path, *, history: int = 50) -> pl.DataFrame:
    """Read a folder of EB-NeRD (`behaviors.parquet`, `history.parquet`) as a log table.

    The articles in view are not in display order, so there is no position. A history ends before
    the impressions begin.

    Args:
      folder: the folder of one split.
      history: number of read articles kept, the latest.

    Returns:
      `request_id`, `user_id`, `timestamp`, `item_id`, `label`, `history`, and `c_device`,
      `u_gender`, `u_age`, `u_postcode`.

    Raises:
      FileNotFoundError, ValueError: see `reader.open_table`.
    """
    folder = Path(folder)
    events, read = (
        open_table(find_files(folder / name)[1][0])
        for name in ("behaviors.parquet", "history.parquet")
    )
    known = {own: name for own, name in EBNERD.items() if own in events.types}
    shown = events.frame.select(
        pl.col("impression_id").alias("request_id"),
        "user_id",
        pl.col("impression_time").alias("timestamp"),
        pl.col("article_ids_inview").alias("item_id"),
        "article_ids_clicked",
        *(pl.col(own).alias(name) for own, name in known.items()),
    )
    past = read.frame.select("user_id", history=pl.col("article_id_fixed").list.tail(history))
    clicked = pl.col("item_id").is_in("article_ids_clicked")
    rows = shown.explode("item_id").with_columns(label=clicked.cast(pl.Float64))
    joined = rows.drop("article_ids_clicked").join(past, on="user_id", how="left")
    return collect(joined.sort("request_id", "item_id"), events.files)
