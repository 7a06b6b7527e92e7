"""The published formats of interaction files: how each is recognised and read.

A file is recognised by its first rows, not by its name: by field names if it has them, else by the
content of its columns (Amazon's ratings of 2014 begin with the user, those of 2018 with the item).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

ROLES = ("user", "item", "rating", "time")
ASIN = re.compile(r"B[0-9A-Z]{9}|[0-9]{9}[0-9X]")
GROUPLENS = "https://grouplens.org/datasets/movielens"
AMAZON_2014 = "https://jmcauley.ucsd.edu/data/amazon"
AMAZON_2018 = "https://nijianmo.github.io/amazon"
AMAZON_2023 = "https://amazon-reviews-2023.github.io"


class Head(NamedTuple):
    """The beginning of a file.

    Attributes:
      form: "csv", "tsv", "double_colon", "json", "parquet" or "blanks".
      names: names of its fields, if the file has them; else ().
      first: the fields of the first row; for "blanks", the items of the first line.
    """

    form: str
    names: tuple[str, ...]
    first: tuple[str, ...]


class Side(NamedTuple):
    """A file of item features beside the interactions.

    Attributes:
      pattern: pattern of its name.
      kind: how it is read, a name in `sides.READERS`.
      columns: for tables and JSON lines: feature -> field; `id` is the item.
    """

    pattern: str
    kind: str
    columns: Mapping[str, str] = {}


class Layout(NamedTuple):
    """A published format.

    Attributes:
      about: the data sets that use it.
      source: where users get it.
      files: its published file names; for people only, as files are recognised by content.
      form: see `Head`.
      columns: field by role; positions, as text, if the file has no names.
      needs, lacks: names that must be present, and names that must be absent.
      item_ids: position of the column that holds Amazon's item numbers; None = does not matter.
      integers: whether ids are numbers; else any text.
      sides: files of item features; the first that exists is used.
    """

    about: str
    source: str
    files: str
    form: str
    columns: Mapping[str, str]
    needs: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    item_ids: int | None = None
    integers: bool = False
    sides: tuple[Side, ...] = ()

    def matches(self, head: Head) -> bool:
        """Tell whether a file with this beginning has this format."""
        if head.form != self.form or not set(self.needs) <= set(head.names):
            return False
        if set(self.lacks) & set(head.names):
            return False
        return bool(head.names) if self.needs else self._positions(head)

    def _positions(self, head: Head) -> bool:
        if head.names or len(head.first) < 2 or (self.columns and len(head.first) != 4):
            return False
        return self.item_ids is None or asin_at(head.first) == self.item_ids


def asin_at(fields: tuple[str, ...]) -> int | None:
    """Return the position, 0 or 1, of the only Amazon item number in the first two fields."""
    found = [n for n, field in enumerate(fields[:2]) if ASIN.fullmatch(field)]
    return found[0] if len(found) == 1 else None


_BY_PLACE = {"user": "0", "item": "1", "rating": "2", "time": "3"}
_REVIEWS = {"user": "reviewerID", "item": "asin", "rating": "overall", "time": "unixReviewTime"}
_REVIEWS_2023 = {"user": "user_id", "item": "parent_asin", "rating": "rating", "time": "timestamp"}
_CSV = {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"}
_META_2014 = Side(
    "meta_*.json*", "lines", {"id": "asin", "brand": "brand", "category": "categories"}
)
_META_2018 = Side("meta_*.json*", "lines", {"id": "asin", "brand": "brand", "category": "category"})
_META_2023 = Side(
    "meta_*.jsonl*",
    "lines",
    {"id": "parent_asin", "store": "store", "category": "categories"},
)

LAYOUTS: dict[str, Layout] = {
    "movielens_csv": Layout(
        "MovieLens 20M, 25M, 32M and latest",
        GROUPLENS,
        "ratings.csv, movies.csv",
        "csv",
        _CSV,
        needs=tuple(_CSV.values()),
        integers=True,
        sides=(Side("movies.csv", "table", {"id": "movieId", "genre": "genres"}),),
    ),
    "movielens_dat": Layout(
        "MovieLens 1M and 10M",
        GROUPLENS,
        "ratings.dat, movies.dat",
        "double_colon",
        _BY_PLACE,
        integers=True,
        sides=(Side("movies.dat", "movies_dat"),),
    ),
    "movielens_100k": Layout(
        "MovieLens 100K",
        GROUPLENS,
        "u.data, u.item",
        "tsv",
        _BY_PLACE,
        integers=True,
        sides=(Side("u.item", "flags"),),
    ),
    "amazon_2014_reviews": Layout(
        "Amazon reviews of 2014",
        AMAZON_2014,
        "reviews_CATEGORY_5.json.gz, meta_CATEGORY.json.gz",
        "json",
        _REVIEWS,
        needs=tuple(_REVIEWS.values()),
        lacks=("verified",),
        sides=(_META_2014,),
    ),
    "amazon_2018_reviews": Layout(
        "Amazon reviews of 2018",
        AMAZON_2018,
        "CATEGORY_5.json.gz, meta_CATEGORY.json.gz",
        "json",
        _REVIEWS,
        needs=(*_REVIEWS.values(), "verified"),
        sides=(_META_2018,),
    ),
    "amazon_2023_reviews": Layout(
        "Amazon reviews of 2023",
        AMAZON_2023,
        "CATEGORY.jsonl.gz, meta_CATEGORY.jsonl.gz",
        "json",
        _REVIEWS_2023,
        needs=tuple(_REVIEWS_2023.values()),
        sides=(_META_2023,),
    ),
    "amazon_2014_ratings": Layout(
        "Amazon ratings of 2014",
        AMAZON_2014,
        "ratings_CATEGORY.csv",
        "csv",
        _BY_PLACE,
        item_ids=1,
        sides=(_META_2014,),
    ),
    "amazon_2018_ratings": Layout(
        "Amazon ratings of 2018",
        AMAZON_2018,
        "CATEGORY.csv",
        "csv",
        _BY_PLACE | {"user": "1", "item": "0"},
        item_ids=0,
        sides=(_META_2018,),
    ),
    "amazon_2023_ratings": Layout(
        "Amazon ratings of 2023",
        AMAZON_2023,
        "CATEGORY.csv.gz",
        "csv",
        _REVIEWS_2023,
        needs=tuple(_REVIEWS_2023.values()),
        sides=(_META_2023,),
    ),
    "sequences": Layout(
        "sequences without times, a user a line",
        "anywhere",
        "*.txt",
        "blanks",
        {},
        integers=True,
    ),
    "columns": Layout(
        "a table with named columns",
        "your own",
        "*.csv, *.tsv, *.jsonl, *.parquet",
        "",
        {},
    ),
}

# Customary names of the columns of a table, in lower case without blanks and underscores.
ALIASES = {
    "user": ("user", "userid", "uid", "reviewerid", "customerid", "memberid", "visitorid"),
    "item": ("item", "itemid", "iid", "movieid", "videoid", "productid", "asin", "parentasin"),
    "rating": ("rating", "score", "stars", "overall", "label", "liked", "click", "isclick"),
    "time": ("time", "timestamp", "unixtime", "unixreviewtime", "timems", "date", "datetime"),
}


class Published(NamedTuple):
    """What a paper reports about a data set prepared from one of these formats."""

    paper: str
    users: int
    items: int
    lists: int
    slate: int


PUBLISHED = {
    "amazon_books": Published("arXiv 2509.18736", 35_736, 38_121, 311_386, 6),
    "kuaivideo": Published("arXiv 2509.18736", 89_416, 10_395, 513_010, 6),
}
