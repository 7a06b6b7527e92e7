"""External: scores that another system wrote into a file.

The file is a CSV with the columns `user`, `item` and `score`, in any order; other columns are
ignored. Users and items are raw ids of the data set, scores any finite numbers, higher = better. An
item that the file does not list for a user has no score. Under `retrieved_pool` it is then not a
candidate; under a protocol that takes the exposed items, it is an error.

Nothing is fitted, so nothing can be cross-fitted. You have to make sure that the scores of training
lists come from a model that did not see them, and those of validation and test lists from one that
saw only earlier feedback. (Logged tables have their first stage's scores in their own column: see
the data set `table`.)
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dnr_jax.data.encoders import KNOWN, Vocabulary
from dnr_jax.retrievers.retriever import (
    FittedRetriever,
    Queries,
    Retriever,
    RetrieverSettings,
    ScoreCatalogue,
    Training,
)
from dnr_jax.settings import knob
from dnr_jax.types import Array

COLUMNS = ("user", "item", "score")


@dataclass(frozen=True, kw_only=True)
class ExternalSettings(RetrieverSettings):
    """Settings of external scores; `cross_fit` has no effect."""

    path: str = knob("", "CSV with the columns user, item, score")

    def inputs(self) -> list[Path]:
        """Return the file that the scores depend on.

        Raises:
          FileNotFoundError: the file is not given or does not exist.
          ValueError: it lacks a column.
        """
        path = Path(self.path).expanduser()
        if not self.path or not path.is_file():
            raise FileNotFoundError(
                f"config.retrievers.external.path is {self.path!r}: it must be a CSV file with the "
                "columns user, item, score"
            )
        with path.open(newline="") as file:
            _places(path, next(csv.reader(file), []))
        return [path]


def external(settings: ExternalSettings) -> Retriever:
    """Make the retriever; it reads the whole file into memory."""

    def fit(key: Array, training: Training, *, progress: bool) -> FittedRetriever:
        del key, progress
        [path] = settings.inputs()
        catalogue = training.catalogue
        user, item, score = _encoded(path, _read(path), catalogue.vocabularies)
        report = {"scores": len(score), "users_with_scores": len(np.unique(user))}
        order = np.argsort(user, kind="stable")
        columns = (user[order], item[order], score[order])
        return FittedRetriever(_scorer(*columns, training.counts["item_count"]), report)

    return Retriever(fit, learns=False)


def _scorer(
    user: np.ndarray, item: np.ndarray, score: np.ndarray, item_count: int
) -> ScoreCatalogue:
    def scores(queries: Queries) -> np.ndarray:
        found = np.full((len(queries.user), item_count), -np.inf, np.float32)
        left, right = (np.searchsorted(user, queries.user, side) for side in ("left", "right"))
        for row, (start, end) in enumerate(zip(left, right, strict=True)):
            found[row, item[start:end]] = score[start:end]
        return found

    return scores


def _read(path: Path) -> dict[str, np.ndarray]:
    """Read the three columns, ids as integers and scores as floats."""
    with path.open(newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        places = _places(path, header)
        columns: list[list[str]] = [[], [], []]
        for number, row in enumerate(rows, 2):
            if len(row) != len(header):
                raise ValueError(
                    f"{path}, line {number}: {len(row)} fields, but the header has {len(header)}"
                )
            for column, place in zip(columns, places, strict=True):
                column.append(row[place])
    return {n: _numbers(path, n, c) for n, c in zip(COLUMNS, columns, strict=True)}


def _places(path: Path, header: list[str]) -> list[int]:
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise ValueError(f"{path}: there is no column {missing[0]!r}, only {header}")
    return [header.index(name) for name in COLUMNS]


def _numbers(path: Path, name: str, column: list[str]) -> np.ndarray:
    kind = np.float32 if name == "score" else np.int64
    try:
        values = np.array(column, np.str_).astype(kind)
    except ValueError as error:
        raise ValueError(f"{path}, column {name!r}: {error}") from None
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise ValueError(
            f"{path}, line {wrong[0] + 2}: the {name} {column[wrong[0]]!r} is not finite"
        )
    return values


def _encoded(
    path: Path, raw: dict[str, np.ndarray], words: Mapping[str, Vocabulary]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Encode the ids; rows of users and items that the data set does not have are left out."""
    user, item = words["user_id"].encode(raw["user"]), words["item_id"].encode(raw["item"])
    known = (user >= KNOWN) & (item >= KNOWN)
    if not known.any():
        raise ValueError(
            f"{path}: none of its {len(user)} rows has a user and an item of the data set: the "
            "columns user and item must hold the data set's own ids"
        )
    return user[known], item[known], raw["score"][known]
