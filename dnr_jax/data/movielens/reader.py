"""Read MovieLens files as interactions in time order.

Three layouts are read: `u.data` (MovieLens-100K; beside it `u.user` and `u.item` if present),
`ratings.dat` (MovieLens-1M; beside it `users.dat` and `movies.dat`), and `sequences.txt` or
`sequences.txt.gz` (one user per line, item ids in time order, no ratings).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from dnr_jax.data.hashing import mix
from dnr_jax.data.interactions import Features, Interactions
from dnr_jax.data.movielens import text
from dnr_jax.data.movielens.settings import STARS

SECONDS_LIMIT = 10**11  # a larger time is in milliseconds: in seconds it is after year 5138
# u.item marks genres by flags in this order.
ITEM_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
# The 20-core of the full MovieLens-1M, as published: users, items, rows; positives by threshold.
FULL_ROWS, PUBLISHED_CORE = 1_000_209, 20
PUBLISHED = (6_022, 3_043, 995_154)
PUBLISHED_POSITIVES = {3.0: 832_994, 4.0: 573_188, 5.0: 225_588}


def inputs(path: Path) -> list[Path]:
    """List the files that `read` opens, the interactions first.

    Raises:
      FileNotFoundError: the path does not exist, or a folder holds none of the known files.
      ValueError: a file with an unknown name.
    """
    main = _main_file(Path(path))
    beside = (main.with_name(name) for name in LAYOUTS[main.name].beside)
    return [main, *(p for p in beside if p.exists())]


def read(path: Path, *, positive_rating: float, tie_seed: int = 0) -> Interactions:
    """Read a folder or a single file of interactions.

    Args:
      path: the folder, or one of the files named in `LAYOUTS`.
      positive_rating: ratings at or above it are positive; without ratings, everything is.
      tie_seed: seed of the order among equal time stamps of a user; 0 = the order of the file.

    Raises:
      FileNotFoundError, ValueError: see `inputs`; `ValueError` also for an empty file, an
        incomplete line, a value that is not a number and a rating outside `STARS`.
    """
    main, *beside = inputs(path)
    layout = LAYOUTS[main.name]
    events = layout.read(main, positive_rating)
    features: dict[str, Features] = {"user": {}, "item": {}}
    for file in beside:
        side, parse = layout.beside[file.name]
        features[side] = parse(file)
    rows = len(events)
    events = _in_order(events, tie_seed)
    time, warnings = _seconds(main, events["time"].to_numpy())
    events = events.with_columns(pl.Series("time", time))
    events = events.unique(["user", "item"], keep="first", maintain_order=True)
    report = {
        "file": main.name,
        "rows": rows,
        "repeated_pairs_dropped": rows - len(events),
        "positive_rating": float(positive_rating),
        "warnings": warnings,
    }
    return Interactions(
        user=events["user"].to_numpy(),
        item=events["item"].to_numpy(),
        label=events["label"].to_numpy(),
        time=events["time"].to_numpy(),
        user_features=features["user"],
        item_features=features["item"],
        report=report,
    )


def _in_order(events: pl.DataFrame, tie_seed: int) -> pl.DataFrame:
    """Sort by user and time; a rating's random draw does not depend on the rest of the file."""
    if not tie_seed:
        return events.sort("user", "time", maintain_order=True)
    draw = mix(tie_seed, 0, events["user"].to_numpy(), events["item"].to_numpy())
    tied = events.with_columns(pl.Series("draw", draw))
    return tied.sort("user", "time", "draw", maintain_order=True).drop("draw")


def _seconds(path: Path, time: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return `int64` times in seconds, and a note about them.

    Raises:
      ValueError: some are in seconds and some in milliseconds.
    """
    fine = time > SECONDS_LIMIT
    if not fine.any():
        return time, []
    if not fine.all():
        raise ValueError(
            f"{path} mixes times in seconds (as {time[~fine][0]}) and in milliseconds (as "
            f"{time[fine][0]}): write all of them in seconds"
        )
    return time // 1000, [f"{path.name}: times were read as milliseconds"]


def check_published(core: Interactions) -> None:
    """Compare the 20-core of the full MovieLens-1M with its published size; pass anything else.

    Raises:
      ValueError: the file's size is MovieLens-1M's, but its core is not the published one.
    """
    if core.report["rows"] != FULL_ROWS or core.report["core"] != PUBLISHED_CORE:
        return
    seen = (len(np.unique(core.user)), len(np.unique(core.item)), len(core.user))
    positives = int(core.label.sum())
    expected = PUBLISHED_POSITIVES.get(core.report["positive_rating"], positives)
    if seen != PUBLISHED or positives != expected:
        raise ValueError(
            f"the 20-core of the full MovieLens-1M has (users, items, rows) {seen} and "
            f"{positives} positives, published are {PUBLISHED} and {expected}: the file differs "
            "from the original, download it again"
        )


def _main_file(path: Path) -> Path:
    known = ", ".join(LAYOUTS)
    if not path.exists():
        raise FileNotFoundError(f"no such path: {path}. Give a folder that holds one of {known}")
    if path.is_file():
        if path.name not in LAYOUTS:
            raise ValueError(f"file {path} has none of the known names: {known}")
        return path
    found = [path / name for name in LAYOUTS if (path / name).exists()]
    if not found:
        seen = sorted(p.name for p in path.iterdir())[:8]
        raise FileNotFoundError(
            f"folder {path} holds none of {known}; it holds {seen}{_advice(path)}"
        )
    return found[0]


def _advice(path: Path) -> str:
    if not (path / "ratings.csv").exists():
        return ""
    return (
        ". ratings.csv is not read: delete its header, replace the commas by '::' and name it "
        "ratings.dat"
    )


def _ratings(separator: str) -> Callable[[Path, float], pl.DataFrame]:
    def parse(path: Path, positive_rating: float) -> pl.DataFrame:
        table = text.table(path, separator, ["user", "item", "rating", "time"])
        rating = text.numbers(path, table["rating"], pl.Float64)
        wrong = ~rating.is_between(*STARS)
        if wrong.any():
            row = int(wrong.arg_max() or 0)
            raise ValueError(
                f"{path}, line {row + 1}: rating {rating[row]} is out of range, expected "
                f"{STARS[0]} to {STARS[1]}"
            )
        ids = [text.numbers(path, table[name], pl.Int64) for name in ("user", "item", "time")]
        label = (rating >= positive_rating).cast(pl.Float32).alias("label")
        return pl.DataFrame([*ids, label])

    return parse


def _sequences(path: Path, positive_rating: float) -> pl.DataFrame:
    """Read one user a line; the line number is the user, the place in the line is the time."""
    del positive_rating  # there are no ratings
    items = text.lines(path).str.strip_chars().str.split(" ")
    lengths = items.list.len().to_numpy().astype(np.int64)
    users = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    values = items.explode(empty_as_null=False, keep_nulls=False).cast(pl.Int64, strict=False)
    if values.null_count():
        line = users[int(values.is_null().arg_max() or 0)]
        raise ValueError(f"{path}, line {line}: expected item ids separated by single blanks")
    starts = np.cumsum(lengths) - lengths
    _refuse_numbered(path, values.to_numpy()[starts])
    columns = {
        "user": users,
        "item": values.to_numpy(),
        "time": np.arange(len(users)) - np.repeat(starts, lengths),
        "label": np.ones(len(users), np.float32),
    }
    return pl.DataFrame(columns)


def _refuse_numbered(path: Path, first: np.ndarray) -> None:
    """Refuse lines that begin with the line number, which is the user's number, not an item."""
    for start in (0, 1):
        if len(first) > 2 and (first == np.arange(start, len(first) + start)).all():
            raise ValueError(
                f"{path}: the lines begin with {start}, {start + 1}, {start + 2} and so on, which "
                "number users, not items: delete the first number of every line"
            )


def _columns(separator: str, names: str, kept: dict[str, str]) -> Callable[[Path], Features]:
    """Make a reader of a feature file: `kept` maps feature names to columns."""

    def parse(path: Path) -> Features:
        table = text.table(path, separator, names.split())
        ids = text.numbers(path, table["id"], pl.Int64).to_list()
        return {
            feature: dict(zip(ids, table[column].to_list(), strict=True))
            for feature, column in kept.items()
        }

    return parse


def _movies(path: Path) -> Features:
    table = text.table(path, "::", ["id", "title", "genres"])
    ids = text.numbers(path, table["id"], pl.Int64).to_list()
    first = table["genres"].str.split("|").list.first().to_list()
    return {"genre": dict(zip(ids, first, strict=True))}


def _flagged_items(path: Path) -> Features:
    table = text.table(path, "|", ["id", "title", "date", "video", "address", *ITEM_GENRES])
    ids = text.numbers(path, table["id"], pl.Int64).to_list()
    flags = table.select(ITEM_GENRES).to_numpy() == "1"
    first = [ITEM_GENRES[i] for i in flags.argmax(axis=1)]
    return {"genre": dict(zip(ids, first, strict=True))}


class FileLayout(NamedTuple):
    """How one kind of data set is read: its main file, and the files that may lie beside it."""

    read: Callable[[Path, float], pl.DataFrame]
    beside: dict[str, tuple[str, Callable[[Path], Features]]]


_PEOPLE = {"gender": "gender", "age": "age", "occupation": "occupation"}
LAYOUTS = {
    "ratings.dat": FileLayout(
        _ratings("::"),
        {
            "users.dat": ("user", _columns("::", "id gender age occupation zip", _PEOPLE)),
            "movies.dat": ("item", _movies),
        },
    ),
    "u.data": FileLayout(
        _ratings("\t"),
        {
            "u.user": ("user", _columns("|", "id age gender occupation zip", _PEOPLE)),
            "u.item": ("item", _flagged_items),
        },
    ),
    "sequences.txt": FileLayout(_sequences, {}),
    "sequences.txt.gz": FileLayout(_sequences, {}),
}
