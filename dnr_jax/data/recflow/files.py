"""RecFlow's files on disk: which days there are, and what a row must carry.

Layout and column meanings: Liu et al. 2024, arXiv 2410.20868, and its authors' repository.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

ROWS_FOLDER = "all_stage"
HISTORY_FOLDERS = ("seq_effective_50_dict", "seq_effective_50")
TRUTH_FOLDER = "truth"  # written by the simulator only
FRAMES, PICKLES = (".feather", ".parquet"), (".pkl",)
PUBLISHED = ("2024-01-13", "2024-02-18")  # first and last day
FIRST_PERIOD_END = "2024-02-04"  # two collection periods; stage sampling differs between them

USER = ("user_id", "device_id", "age", "gender", "province")
ITEM = ("video_id", "author_id", "category_level_one", "category_level_two", "upload_type")
NUMBERS = ("request_id", "request_timestamp", *USER, *ITEM, "upload_timestamp", "duration")
STAGES = ("realshow", "rerank_pos", "rank_pos", "rerank_neg", "rank_neg", "coarse_neg")
FLAGS = (*STAGES, "prerank_neg")  # in the priority in which a candidate set is filled
STRICT_FLAGS = FLAGS[:4]  # these rows truly entered the rerank stage
INDICES = ("rank_index", "rerank_index")
FEEDBACK = ("effective_view", "long_view", "like", "follow", "forward", "comment")
COLUMNS = (*NUMBERS, *FLAGS, *INDICES, *FEEDBACK)
HISTORY_WIDTH = 10


class Day(NamedTuple):
    """The files of one day; `history` and `truth` are None where there are none."""

    name: str
    rows: Path
    history: Path | None
    truth: Path | None


def find_days(path: Path, *, period: str, days: int) -> tuple[list[Day], dict[str, Any]]:
    """List the usable days of a RecFlow folder, oldest first, and what is wrong with the others.

    Args:
      path: the folder that holds `all_stage/`.
      period: "all", or "first" for the days up to 2024-02-04.
      days: keep only so many of the last days; 0 keeps all.

    Raises:
      FileNotFoundError: the folder, `all_stage/` or the history folder is not there.
      ValueError: fewer than three usable days (train, valid and test need one each), or two files
        of one day.
    """
    folders = _folders(path)
    every = [p for p in sorted(folders[0].iterdir()) if _is_day(p.stem) and p.suffix in FRAMES]
    empty = [str(p.relative_to(path)) for p in every if p.stat().st_size == 0]
    files = {name: p for name in _stems(every) if (p := _file(folders[0], name, FRAMES))}
    names = list(files)
    if period == "first":
        names = [name for name in names if name <= FIRST_PERIOD_END]
    names = names[-days:]  # days == 0 keeps all
    if len(names) < 3:
        raise ValueError(
            f"{folders[0]} has {len(names)} usable day file(s) for period {period!r} ({names}; "
            f"empty: {empty}): three are needed, named YYYY-MM-DD.feather or .parquet"
        )
    found = [
        Day(
            n,
            files[n],
            _file(folders[1], n, PICKLES),
            _file(path / TRUTH_FOLDER, n, FRAMES),
        )
        for n in names
    ]
    findings = {
        "days": names,
        "missing_days": _gaps(names),
        "published_days_absent": [] if days else _absent(list(files), period),
        "empty_files": empty,
        "days_without_history": [d.name for d in found if d.history is None],
    }
    return found, findings


def _folders(path: Path) -> tuple[Path, Path]:
    if not (path / ROWS_FOLDER).is_dir():
        raise FileNotFoundError(
            f"no RecFlow data in {path}: expected the folder {path / ROWS_FOLDER} with files "
            "YYYY-MM-DD.feather; unpack the archives there or correct config.data.path"
        )
    for name in HISTORY_FOLDERS:
        if (path / name).is_dir():
            return path / ROWS_FOLDER, path / name
    raise FileNotFoundError(
        f"no user histories in {path}: expected a folder named one of {HISTORY_FOLDERS} with "
        "files YYYY-MM-DD.pkl; unpack that archive too"
    )


def _is_day(name: str) -> bool:
    return re.fullmatch(r"\d{4}-\d{2}-\d{2}", name) is not None


def _stems(paths: Sequence[Path]) -> list[str]:
    return sorted({path.stem for path in paths})


def _file(folder: Path, name: str, suffixes: Sequence[str]) -> Path | None:
    """Return the file of day `name` that holds something; None if there is none."""
    paths = [folder / f"{name}{suffix}" for suffix in suffixes]
    found = [path for path in paths if path.exists() and path.stat().st_size > 0]
    if len(found) > 1:
        raise ValueError(
            f"{folder} has two files of {name}, {found[0].name} and {found[1].name}: move one away"
        )
    return found[0] if found else None


def _gaps(names: Sequence[str]) -> list[str]:
    first, last = date.fromisoformat(names[0]), date.fromisoformat(names[-1])
    every = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return [day.isoformat() for day in every if day.isoformat() not in names]


def _absent(names: Sequence[str], period: str) -> list[str]:
    """List the published days that a folder of most of them lacks; a mirror may lack one."""
    published = [*PUBLISHED, *_gaps(PUBLISHED)]
    if 2 * len(set(names) & set(published)) < len(published):
        return []
    last = FIRST_PERIOD_END if period == "first" else PUBLISHED[1]
    return sorted(day for day in published if day not in names and day <= last)


def absent(found: Mapping[str, Any]) -> list[str]:
    """Say in words which days are not there, of the findings of `find_days`."""
    said = []
    edges = [day for day in found["published_days_absent"] if day not in found["missing_days"]]
    if found["missing_days"]:
        said.append(f"days missing in the middle: {found['missing_days']}")
    if edges:
        said.append(f"published days that the folder lacks: {edges}; get them from another mirror")
    return said


def scan(path: Path) -> pl.LazyFrame:
    """Open a feather (version 2) or parquet file lazily, column names stripped of blanks.

    Raises:
      ValueError: the file is neither, is torn, or two of its names differ only in blanks.
    """
    with open(path, "rb") as file:
        head = file.read(6)
        file.seek(-min(6, path.stat().st_size), 2)
        tail = file.read()
    if head == tail == b"ARROW1":
        frame = pl.scan_ipc(path)
    elif head[:4] == tail[-4:] == b"PAR1":
        frame = pl.scan_parquet(path)
    else:
        raise torn(path, f"starts with {head!r} and ends with {tail!r}, not feather 2 or parquet")
    try:
        names = frame.collect_schema().names()
    except (pl.exceptions.ComputeError, OSError) as error:
        raise torn(path, str(error)) from error
    stripped = [name.strip() for name in names]
    if len(set(stripped)) < len(names):
        raise ValueError(f"{path}: column names differ only in blanks: {names}")
    return frame.rename(dict(zip(names, stripped, strict=True)))


def collect(frame: pl.LazyFrame, path: Path) -> pl.DataFrame:
    """Run a lazy query on `path`; a damaged file becomes one clear `ValueError`."""
    try:
        return frame.collect()
    except (pl.exceptions.ComputeError, pl.exceptions.PanicException, OSError) as error:
        raise torn(path, str(error)) from error


def torn(path: Path, reason: str) -> ValueError:
    """Make the error for a damaged file: what was seen, and the cure."""
    return ValueError(f"{path} cannot be read: {reason}; delete it and download or make it again")
