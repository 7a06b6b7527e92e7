"""The retriever that an interactions model was trained behind: it scores and retrieves items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dnr_jax.data import direct
from dnr_jax.data import requests as requests_
from dnr_jax.data.encoders import KNOWN, Encoders, check_keys
from dnr_jax.data.raw_values import looked_up
from dnr_jax.io import model_files
from dnr_jax.retrievers import kept
from dnr_jax.retrievers.retriever import Queries, ScoreCatalogue, take

AT_ONCE = 256  # requests for which the whole catalogue is scored at a time
Raw = Mapping[str, Any]


class FirstStage:
    """A saved retriever, loaded on first use.

    It was trained on all training lists and scored validation and test. A user not seen in training
    is scored by what the retriever knows without the user: the history, or popularity.

    Args:
      folder: where `retrievers.kept` saved it.
      encoders: of the model.
    """

    def __init__(self, folder: Path, encoders: Encoders):
        self._folder, self._encoders = folder, encoders
        self._keys = {name: words.keys for name, words in encoders.vocabularies.items()}

    @cached_property
    def _score(self) -> ScoreCatalogue:
        return kept.load(self._folder, cure=model_files.CURE)

    def scores(self, requests: Sequence[Raw]) -> list[np.ndarray]:
        """Score the items of checked raw requests: raw scores `float32 [n]` for each request.

        An item that the retriever does not know gets the lowest score of its request.
        """
        found = []
        for some, queries in self._parts(requests):
            sizes = [len(raw["items"]) for raw in some]
            codes = np.zeros((len(some), max(sizes)), np.int32)
            for row, raw in zip(codes, some, strict=True):
                row[: len(raw["items"])] = looked_up(self._keys["item_id"], list(raw["items"]))
            raw_scores = self.of(queries, codes)
            found += [row[:size] for row, size in zip(raw_scores, sizes, strict=True)]
        return found

    def retrieve(self, requests: Sequence[Raw], size: int) -> list[dict[str, Any]]:
        """Add to checked raw requests the `size` best items with raw scores, the best first.

        Items of a request's history are left out, and those that the retriever does not return.
        """
        found = []
        for some, queries in self._parts(requests):
            raw_scores = self._asked(queries)
            raw_scores[:, :KNOWN] = -np.inf
            for raw, own in zip(some, raw_scores, strict=True):
                met = [item for item, _ in direct.events(raw)]
                own[looked_up(self._keys["item_id"], met)] = -np.inf
                best = np.argsort(-own, kind="stable")[:size]
                best = best[np.isfinite(own[best])]
                items = self._keys["item_id"][best - KNOWN].tolist()
                found.append({**raw, "items": items, "scores": own[best].tolist()})
        return found

    def of(self, queries: Queries, candidates: np.ndarray) -> np.ndarray:
        """Score candidates by code `int32 [B, N]`, where 0 and 1 are none: `float32 [B, N]`."""
        parts = [
            np.take_along_axis(self._asked(take(queries, rows)), candidates[rows], axis=1)
            for rows in _parts_of(len(candidates))
        ]
        raw = np.concatenate(parts)
        known = (candidates >= KNOWN) & np.isfinite(raw)
        least = np.min(raw, axis=1, initial=np.inf, where=known, keepdims=True)
        return np.where(known, raw, np.where(np.isfinite(least), least, 0)).astype(np.float32)

    def _asked(self, queries: Queries) -> np.ndarray:
        """Score the catalogue, with few batch sizes because each may be compiled."""
        count = len(queries.user)
        rows = np.minimum(np.arange(1 << (count - 1).bit_length()), count - 1)
        return np.array(self._score(take(queries, rows))[:count])

    def _parts(self, requests: Sequence[Raw]) -> Iterator[tuple[Sequence[Raw], Queries]]:
        for rows in _parts_of(len(requests)):
            some = [requests[row] for row in rows]
            yield some, self._queries(some)

    def _queries(self, requests: Sequence[Raw]) -> Queries:
        asked = [{**raw, "items": [None]} for raw in requests]
        history = self._encoders.direct().arrays(asked, 1)["history"]
        user = looked_up(self._keys["user_id"], [raw.get("user") for raw in requests])
        return Queries(user, history[..., 0], history[..., 1])


def check(encoders: Encoders, requests: Sequence[Raw]) -> None:
    """Raise `ValueError` for an itemless raw request that is not in the data set's format."""
    for number, raw in enumerate(requests):
        check_keys(f"request {number}", raw, {*requests_.FIELDS, "scores"})
        if "items" in raw or "scores" in raw:
            raise ValueError(f"request {number} has items or scores, which are to be retrieved")
    requests_.check(encoders, [{**raw, "items": [None]} for raw in requests], size=1)


def liked(user: np.ndarray, history: np.ndarray) -> Queries:
    """Make queries of users `int32 [B]` who liked all their history `int32 [B, T]`, 0 = padding."""
    return Queries(user, history, np.where(history > 0, direct.POSITIVE, 0).astype(np.int32))


def _parts_of(count: int) -> Iterator[np.ndarray]:
    for start in range(0, count, AT_ONCE):
        yield np.arange(start, min(start + AT_ONCE, count))
