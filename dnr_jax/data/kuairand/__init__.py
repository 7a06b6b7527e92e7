"""KuaiRand (Gao et al. 2022, arXiv 2208.08696): standard logs, and a log of random exposures.

Pure, 1K and 27K differ in the suffix of their files. Videos shown uniformly at random are an
unbiased test set: protocol `random_exposure`. The standard logs are then cut where it begins.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from dnr_jax.data import order
from dnr_jax.data.interactions import Features, Interactions, RandomExposures, k_core
from dnr_jax.data.kuairand.settings import KuaiRandSettings

SOURCE = "https://zenodo.org/records/10439422"
VERSIONS = ("pure", "1k", "27k")
STANDARD, RANDOM = "log_standard_*_{}*.csv", "log_random_*_{}*.csv"
KEYS = ("user_id", "video_id", "time_ms")
USER_FEATURES = ("user_active_degree", "follow_user_num_range", "fans_user_num_range")
VIDEO_FEATURES = ("author_id", "video_type", "upload_type", "tag")


class Files(NamedTuple):
    """The files of one version; features are None where there are none."""

    standard: list[Path]
    random: list[Path]
    users: Path | None
    videos: Path | None


def inputs(path: Path, settings: KuaiRandSettings) -> list[Path]:
    """List the files that `read` opens.

    Raises:
      FileNotFoundError: there is no standard log, or no random log although one is asked for.
      ValueError: logs of several versions.
    """
    found = _files(Path(path), settings)
    sides = [file for file in (found.users, found.videos) if file]
    return [*found.standard, *found.random, *sides]


def read(path: Path, settings: KuaiRandSettings) -> Interactions:
    """Read the logs; the first exposure of each (user, video) pair counts.

    Raises:
      FileNotFoundError: see `inputs`.
      ValueError: see `inputs`; a damaged file, missing columns, a value that is not an integer, or
        an empty core.
    """
    files = _files(Path(path), settings)
    log, random = (_logs(some, settings.label) for some in (files.standard, files.random))
    rows, shown, from_then_on = len(log), len(random), 0
    if shown:
        log = log.filter(pl.col("time") < random["time"].min())
        from_then_on = rows - len(log)
    if not len(log):
        raise ValueError(f"{path}: no row of the standard logs is left from before the random log")
    kept = len(log)
    events, names = order.events(log, tie_seed=0, repeats="first")
    report = {
        "files": [file.name for file in inputs(path, settings)],
        "rows": rows,
        "rows_from_the_random_log_on": from_then_on,
        "repeated_pairs_dropped": kept - len(events.user),
        "random_rows": shown,
        "label": settings.label,
        "warnings": [],
    }
    core = names.put(k_core(events._replace(report=report), core=settings.core))
    return core._replace(
        user_features=_features(files.users, "user_id", USER_FEATURES, core.user),
        item_features=_features(files.videos, "video_id", VIDEO_FEATURES, core.item),
        random=_exposures(random),
    )


def truth(path: Path, settings: KuaiRandSettings) -> None:
    """Say that the true relevance is not known."""


def _files(path: Path, settings: KuaiRandSettings) -> Files:
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not a folder: give the one of KuaiRand's CSV files")
    found = [version for version in VERSIONS if any(path.glob(STANDARD.format(version)))]
    if not found:
        raise FileNotFoundError(
            f"{path} holds no log_standard_..._VERSION.csv with VERSION one of "
            f"{', '.join(VERSIONS)}: get it from {SOURCE} and give its folder data/"
        )
    if len(found) > 1:
        raise ValueError(
            f"{path} holds logs of {' and '.join(found)}: give a folder of one of them"
        )
    random = sorted(path.glob(RANDOM.format(found[0])))
    if settings.random_log and not random:
        raise FileNotFoundError(
            f"{path} holds no log_random_..._{found[0]}.csv, which data.random_log asks for"
        )
    sides = (path / f"user_features_{found[0]}.csv", path / f"video_features_basic_{found[0]}.csv")
    users, videos = (side if side.exists() else None for side in sides)
    standard = sorted(path.glob(STANDARD.format(found[0])))
    return Files(standard, random if settings.random_log else [], users, videos)


def _logs(paths: list[Path], label: str) -> pl.DataFrame:
    """Read logs into user, item, time (seconds) and liked, in the order of the files."""
    kinds = {"user": pl.Int64, "item": pl.Int64, "time": pl.Int64, "liked": pl.Boolean}
    return pl.concat([pl.DataFrame(schema=kinds), *(_log(path, label) for path in paths)])


def _log(path: Path, label: str) -> pl.DataFrame:
    names = dict(zip((*KEYS, label), ("user", "item", "time", "liked"), strict=True))
    frame = _collect(
        pl.scan_csv(path, schema_overrides=dict.fromkeys(names, pl.Int64)), names, path
    )
    for column, name in names.items():
        if frame[name].null_count():
            row = int(frame[name].is_null().arg_max() or 0)
            raise ValueError(f"{path}, line {row + 2} has no {column}: it must be an integer")
    return frame.with_columns(pl.col("time") // 1000, pl.col("liked") > 0)


def _collect(frame: pl.LazyFrame, names: dict[str, str], path: Path) -> pl.DataFrame:
    try:
        seen = frame.collect_schema().names()
        lost = [name for name in names if name not in seen]
        if lost:
            raise ValueError(f"{path} lacks the column(s) {', '.join(lost)}; it has {seen}")
        return frame.select(list(names)).rename(names).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read: {reason}; get it again") from error


def _exposures(random: pl.DataFrame) -> RandomExposures | None:
    if not len(random):
        return None
    events, names = order.events(random, tie_seed=0, repeats="first")
    known = names.put(events)
    return RandomExposures(known.user, known.item, known.label, known.time)


def _features(path: Path | None, key: str, names: tuple[str, ...], ids: np.ndarray) -> Features:
    """Read features of the remaining ids; the first of several tags counts."""
    if path is None:
        return {}
    columns = {name: name for name in (key, *names)}
    frame = _collect(pl.scan_csv(path, infer_schema=False), columns, path)
    frame = frame.with_columns(pl.col(key).cast(pl.Int64, strict=False)).filter(
        pl.col(key).is_in(np.unique(ids).tolist())
    )
    found: Features = {}
    for name in names:
        values = frame[name].str.split(",").list.first()
        pairs = zip(frame[key].to_list(), values.to_list(), strict=True)
        found[name] = {one: value for one, value in pairs if value}
    return found
