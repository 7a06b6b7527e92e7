"""Writes simulated logs as RecFlow's files."""

from __future__ import annotations

import pickle
import sys
import types
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from dnr_jax.data.recflow.files import FEEDBACK, FLAGS, INDICES, NUMBERS
from dnr_jax.data.recflow.simulator.world import World

ROW_COLUMNS = (
    *NUMBERS,
    "realshow",
    "rerank_pos",
    "rerank_neg",
    "rank_pos",
    "rank_neg",
    "coarse_neg",
    "prerank_neg",
    *INDICES,
    "playing_time",
    *FEEDBACK,
)
STAGE_COLUMNS = (
    "video_id",
    "author_id",
    "duration",
    "category_level_two",
    "upload_type",
    "upload_timestamp",
    "category_level_one",
    "effective_view",
)
TEST_COLUMNS = (
    "request_id",
    "user_id",
    "request_timestamp",
    "device_id",
    "age",
    "gender",
    "province",
    "video_id",
    "author_id",
    "category_level_two",
    "upload_type",
    "upload_timestamp",
    "category_level_one",
    "effective_view",
)
VIDEO_COLUMNS = (
    "video_id",
    "author_id",
    "category_level_two",
    "upload_type",
    "upload_timestamp",
    "category_level_one",
)


class Quirks(NamedTuple):
    """Oddities of the real files.

    Attributes:
      missing_index: rank and rerank index of rows that never reached the stage; NaN makes the
        columns floats.
      index_base: 0 or 1, what ranks count from.
      leading_space: write " category_level_two".
      defaultdict_pickles: dictionaries with default factories of a module `utils`.
      both_spellings: test files also under the names that the authors' code opens.
      placeholders: 0-byte example files, as in the git tree.
      absent_stages: every seventh request has no early-stage rows, nor keys for them.
    """

    missing_index: float = 0
    index_base: int = 1
    leading_space: bool = False
    defaultdict_pickles: bool = False
    both_spellings: bool = False
    placeholders: bool = False
    absent_stages: bool = False


def write(
    folder: Path,
    rows: pl.DataFrame,
    histories: np.ndarray,
    days: Sequence[str],
    world: World,
    quirks: Quirks,
) -> None:
    """Write all files.

    Args:
      folder: made here.
      rows: all recorded rows sorted by request, columns `ROW_COLUMNS` (ranks from 1 or null),
        `day` and `relevance`.
      histories: `int64 [R, 50, 10]` by request id.
      days: names of the days.
      world: for `id_cnt`.
      quirks: what to write oddly.
    """
    typed = rows.select(_typed(name, quirks) for name in ROW_COLUMNS)
    stages = _stages(typed)
    ends = np.searchsorted(rows["day"].to_numpy(), range(len(days)), side="right").tolist()
    for day, first, last in zip(days, [0, *ends], ends, strict=False):
        part = typed[first:last]
        ids = part["request_id"].unique().to_numpy()
        past = histories[ids]
        _frame(folder / "all_stage" / f"{day}.feather", part, quirks)
        _frame(folder / "realshow" / f"{day}.feather", part.filter(pl.col("realshow") == 1), quirks)
        truth = rows[first:last].select("request_id", "video_id", "relevance")
        _frame(folder / "truth" / f"{day}.feather", truth, quirks)
        sequences = dict(zip(ids.tolist(), past, strict=True))
        _pickle(folder / "seq_effective_50_dict" / f"{day}.pkl", sequences, quirks)
        _pickle(folder / "request_id_dict" / f"{day}.pkl", _of(stages, ids), quirks)
        viewed = np.unique(past[..., 9][past[..., 7] > 0])
        _pickle(folder / "ubm_seq_request_id_dict" / f"{day}.pkl", _of(stages, viewed), quirks)
        corpus = typed[:last].filter(pl.col("realshow") == 1)
        corpus = corpus.select(VIDEO_COLUMNS).unique("video_id").sort("video_id")
        _frame(folder / "others" / "realshow_video_info_daily" / f"{day}.feather", corpus, quirks)
    _frame(folder / "others" / "realshow_video_info.feather", corpus, quirks)
    _tests(folder / "others", part, quirks)
    counts = {"request_id": len(histories)} | world.sizes
    _pickle(folder / "others" / "id_cnt.pkl", counts, Quirks())
    if quirks.placeholders:
        for file in sorted(folder.glob("*/*.feather")) + sorted(folder.glob("*/*.pkl")):
            (file.parent / f"example{file.suffix}").touch()


def _typed(name: str, quirks: Quirks) -> pl.Expr:
    column = pl.col(name)
    if name not in INDICES:
        return column.cast(pl.Int64)
    kind = pl.Float64 if np.isnan(quirks.missing_index) else pl.Int64
    column = column.cast(kind) - 1 + quirks.index_base
    return column.fill_null(pl.lit(quirks.missing_index, kind)).cast(kind)


def _frame(path: Path, frame: pl.DataFrame, quirks: Quirks) -> None:
    if quirks.leading_space and "category_level_two" in frame.columns:
        frame = frame.rename({"category_level_two": " category_level_two"})
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_ipc(path, compression="lz4")


def _stages(typed: pl.DataFrame) -> dict[int, dict[str, np.ndarray]]:
    """Collect rows by request and stage; a stage without rows has no key, as in the real files."""
    table: dict[int, dict[str, np.ndarray]] = {
        i: {} for i in typed["request_id"].unique().to_list()
    }
    for flag in FLAGS:
        part = typed.filter(pl.col(flag) == 1)
        ids, starts = np.unique(part["request_id"].to_numpy(), return_index=True)
        arrays = np.split(part.select(STAGE_COLUMNS).to_numpy(), starts[1:])
        for request_id, array in zip(ids.tolist(), arrays, strict=False):
            table[request_id][flag] = array
    return table


def _of(stages: Mapping[int, dict[str, np.ndarray]], ids: np.ndarray) -> dict[int, Any]:
    return {request_id: stages[request_id] for request_id in ids.tolist()}


def _tests(folder: Path, last_day: pl.DataFrame, quirks: Quirks) -> None:
    """Write the authors' three test files of the last day."""
    entered = pl.any_horizontal(pl.col("realshow", "rerank_pos", "rank_pos") == 1)
    late = entered | pl.any_horizontal(pl.col("rerank_neg", "rank_neg") == 1)
    coarse = late | (pl.col("coarse_neg") == 1)
    files: list[tuple[tuple[str, str], pl.DataFrame]] = [
        (
            ("retrieval_test", "recall_test"),
            last_day.filter(entered).select("request_id", "video_id", "effective_view"),
        ),
        (("coarse_rank_test", "prerank_test"), last_day.filter(coarse).select(TEST_COLUMNS)),
        (("rank_test", "rank_test"), last_day.filter(late).select(TEST_COLUMNS)),
    ]
    for names, frame in files:
        for name in names if quirks.both_spellings else names[:1]:
            _frame(folder / f"{name}.feather", frame, quirks)


def _pickle(path: Path, content: dict[Any, Any], quirks: Quirks) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        if not quirks.defaultdict_pickles:
            pickle.dump(content, file, protocol=4)
            return
        with _foreign_factories() as (outer, inner):
            wrapped = {
                key: defaultdict(inner, value) if isinstance(value, dict) else value
                for key, value in content.items()
            }
            pickle.dump(defaultdict(outer, wrapped), file, protocol=4)


@contextmanager
def _foreign_factories() -> Iterator[tuple[Callable[[], Any], Callable[[], Any]]]:
    """Offer factories that pickle by the name `utils.defaultdict_...`, as the authors' do.

    Pickle stores a function by its module's name and looks it up there, so for the time of
    writing a module of that name has to exist.
    """
    module = types.ModuleType("utils")
    for name in ("defaultdict_tuple", "defaultdict_str"):
        factory = types.FunctionType((lambda: ()).__code__, {}, name)
        factory.__module__, factory.__qualname__ = "utils", name
        setattr(module, name, factory)
    before = sys.modules.get("utils")
    sys.modules["utils"] = module
    try:
        yield module.defaultdict_tuple, module.defaultdict_str
    finally:
        del sys.modules["utils"]
        if before is not None:
            sys.modules["utils"] = before
