"""A trained model of a run folder, ready to rank raw requests."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar, overload, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from packaging.version import Version

from dnr_jax import sealed, settings
from dnr_jax.data import DATASETS, encoders
from dnr_jax.data.direct import PLAIN, checked_scores
from dnr_jax.data.encoders import Encoders, check_keys, listed
from dnr_jax.data.protocols import scale
from dnr_jax.io import model_files
from dnr_jax.io.run_folder import CATALOGUE, ENCODERS, RETRIEVER
from dnr_jax.nn.item_tables import padded
from dnr_jax.nn.precision import compute_in
from dnr_jax.rerankers import RERANKERS
from dnr_jax.retrievers import kept
from dnr_jax.serving import first_stage, folders
from dnr_jax.serving.first_stage import FirstStage
from dnr_jax.serving.shapes import to_power_of_two
from dnr_jax.types import Array, Params, Request, Reranker, Task, apply, rank

_LOG = logging.getLogger(__name__)
RawRequest = Mapping[str, Any]
# (params, request, scores [B, N]) -> float32 [B, N], higher = shown earlier
Order = Callable[[Params, Request, Array], Array]


@runtime_checkable
class Frame(Protocol):
    """A frame of polars, pandas (2.2 or later) or pyarrow, which can export Arrow data."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any: ...


AnyFrame = TypeVar("AnyFrame", bound=Frame)


@dataclass(frozen=True)
class Model:
    """A trained reranker that takes raw requests.

    A raw request is what the data set's `encode` takes, plus `"scores"`: the first-stage score of
    each item, raw for data with a retriever of this package and for log tables, else in [0, 1].
    Scores may be left out if the model reads none or has a `first_stage`, which then computes them.
    Users, items and values not seen in training are read as unknown.

    Attributes:
      card: its description, training settings and test results.
      params: its parameters.
      encoders: turn raw requests into arrays.
      order: the compiled scorer.
      first_stage: the retriever that it was trained behind, if that could be saved.
    """

    card: Mapping[str, Any]
    params: Params
    encoders: Encoders
    order: Order
    first_stage: FirstStage | None = None

    @property
    def reads_scores(self) -> bool:
        """Whether it reads the first stage's scores."""
        return bool(self.card["reranker"].get("score_entry") != "none")

    @overload
    def rank(self, requests: Sequence[RawRequest]) -> list[list[Any]]: ...
    @overload
    def rank(self, requests: AnyFrame) -> AnyFrame: ...
    def rank(self, requests: Any) -> Any:
        """Return each request's items, the best first; ties keep the given order.

        Args:
          requests: raw requests; or, for a model that `Scorer` takes, a frame of polars, pandas or
            pyarrow with one row per candidate and customary column names.

        Returns:
          A list of items for each raw request; for a frame, a frame of the same kind with the
          columns of `batches.Scored.table`.

        Raises:
          ValueError: see `scores`.
        """
        if isinstance(requests, Frame):
            return _frames().rank_frame(self, requests)
        scored = self.scores(requests)
        return [
            [raw["items"][place] for place in np.argsort(-scores, kind="stable")]
            for raw, scores in zip(requests, scored, strict=True)
        ]

    @overload
    def scores(self, requests: Sequence[RawRequest]) -> list[np.ndarray]: ...
    @overload
    def scores(self, requests: Frame) -> np.ndarray: ...
    def scores(self, requests: Any) -> Any:
        """Score each request's items, `float32 [n]` in the given order, higher = better.

        These are logits, or positions in the lists that the model builds.

        Args:
          requests: see `rank`; a frame gives one `float32 [rows]`, in its own order.

        Raises:
          ValueError: a request is not in the data set's format, or its scores do not fit its items;
            a single request was given without a list; a frame lacks a column or holds an invalid
            value, or `Scorer` does not take the model.
        """
        if isinstance(requests, Frame):
            return _frames().Scorer(self).in_order(requests)
        _check_list(requests)
        if not requests:
            return []
        _check_each(requests)
        plain = [{key: raw[key] for key in raw if key != "scores"} for raw in requests]
        size = max(self.encoders.size, *(len(raw.get("items", ())) for raw in requests))
        encode = DATASETS[self.card["data"]["name"]].encode
        request = encode(self.encoders, plain, size=size).request
        # The request's number is the key of its random draws, so they do not depend on its place.
        request = dataclasses.replace(request, index=jnp.zeros_like(request.index))
        scores = _scores(requests, np.asarray(request.where), self)
        padded = jax.tree.map(to_power_of_two, (request, scores))
        found = np.asarray(self.order(self.params, *padded))
        return [found[row, : len(raw["items"])] for row, raw in enumerate(requests)]

    def retrieve(self, requests: Sequence[RawRequest], size: int | None = None) -> list[RawRequest]:
        """Add the best items of the catalogue, and their scores, to requests, for `rank`.

        Items of the history are left out.

        Args:
          requests: raw interactions requests without items: `{"user": 5, "history": [...]}`.
          size: items per request; None = as many as in training.

        Raises:
          ValueError: the model has no retriever, a request is not in the data set's format, or
            `size` is not a whole number of at least 1.
        """
        if self.first_stage is None:
            raise ValueError(
                "this model was saved without a retriever: only models of interactions have one, "
                "and not of one whose scores came from elsewhere. Give requests with items"
            )
        _check_list(requests)
        first_stage.check(self.encoders, requests)
        size = self.encoders.size if size is None else _checked_size(size)
        return list(self.first_stage.retrieve(requests, size))


def _check_list(requests: Any) -> None:
    if not isinstance(requests, Sequence):
        raise ValueError(
            f"requests is of type {type(requests).__name__}, expected a list of requests, as "
            "[request], or a frame of polars, pandas or pyarrow; collect a lazy one first"
        )


def _check_each(requests: Sequence[Any]) -> None:
    """Raise `ValueError` unless each request is a mapping, and its items are a list."""
    for number, raw in enumerate(requests):
        place = f"request {number}"
        check_keys(place, raw, raw, ("items",))
        listed(f"{place}: items", raw["items"])


def _checked_size(size: Any) -> int:
    """Return a number of items to retrieve; raise `ValueError` unless it is an integer >= 1."""
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(
            f"size is {size!r}: give a whole number of items, 1 or more, or None for as many as in "
            "training"
        )
    return int(size)


def load(path: str | os.PathLike[str], row: str | None = None) -> Model:
    """Load a trained model: the best seed on validation of a run's row, or a packed model.

    Args:
      path: a run folder, or a folder that `pack` made.
      row: its name in the run's table, e.g. "dnr_b"; None for a packed model.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: the run has no model of that row (the known ones are named), a file is damaged,
        or the model was written by a later version.
    """
    home, folder = folders.find(Path(path), row)
    card, params = model_files.load(folder)
    _note_version(folder, card)
    sealed.check(home / ENCODERS / encoders.FILE, card["encoders_sha256"], cure=model_files.CURE)
    encoded = encoders.load(home / ENCODERS, cure=model_files.CURE)
    if encoded.plain:  # the scale of first-stage scores is set by the run, not by its data
        encoded = encoded._replace(transforms={**PLAIN, "score": card["score"] or ""})
    reranker = _build(card, _task(card, encoded, home))
    deployed = rank if card["deployed_order"] == "arrange" else apply
    order = jax.jit(lambda *inputs: deployed(reranker, *inputs))
    return Model(card, params, encoded, order, _first_stage(card, home, encoded))


def _first_stage(card: Mapping[str, Any], home: Path, encoded: Encoders) -> FirstStage | None:
    digest = card.get("retriever_sha256")
    if digest is None:
        return None
    sealed.check(home / RETRIEVER / kept.FILE, digest, cure=model_files.CURE)
    return FirstStage(home / RETRIEVER, encoded)


def check_direct(model: Model, done: str) -> None:
    """Raise `ValueError` unless `data.direct` can read the model's raw requests."""
    name = model.card["data"]["name"]
    able = [n for n, entry in DATASETS.items() if entry.direct]
    if name not in able:
        raise ValueError(
            f"the model was trained on {name}, whose requests have a form of their own; only "
            f"models trained on {', '.join(able)} are {done}. Give this one its requests by "
            "dnr_jax.load(...).rank(requests)"
        )


def _note_version(folder: Path, card: Mapping[str, Any]) -> None:
    """Warn of a model written by a later version, whose scores may differ here."""
    written, here = (card.get("versions", {}).get("dnr_jax"), metadata.version("dnr_jax"))
    if written is not None and Version(written) > Version(here):
        _LOG.warning(
            "model %s was written by dnr_jax %s, this is %s: scores may differ",
            *(folder, written, here),
        )


def _frames() -> ModuleType:
    from dnr_jax.serving import batches  # which scores by models

    return batches


def _task(card: Mapping[str, Any], encoded: Encoders, path: Path) -> Task:
    sealed.check(path / CATALOGUE, card["catalogue_sha256"], cure=model_files.CURE)
    with np.load(path / CATALOGUE, allow_pickle=False) as arrays:
        tables = {name: arrays[name] for name in arrays.files}
    known = card["task"]
    spec = encoded.spec._replace(sizes=known["sizes"])
    catalogue = {name: padded(t, spec.sizes[spec.item[0]]) for name, t in tables.items()}
    return Task(spec, slate_size=known["slate_size"], seed=known["seed"], **catalogue)


def _build(card: Mapping[str, Any], task: Task) -> Reranker:
    knobs = dict(card["reranker"])
    entry = settings.find("reranker", knobs.pop("name"), RERANKERS)
    built = entry.build(task, settings.read(entry.settings, knobs, "model.json: reranker"))
    return compute_in(built, card["dtype"])


def _scores(requests: Sequence[RawRequest], where: np.ndarray, model: Model) -> Array:
    """Collect the scores x `float32 [B, N]` of all requests."""
    raw = np.zeros(where.shape, np.float64)
    transform = model.card["score"]
    for row, request in enumerate(with_scores(requests, model)):
        given = request.get("scores")
        if given is None and not model.reads_scores:
            continue
        raw[row, : len(request["items"])] = _given(f"request {row}", request, transform)
    return jnp.asarray(scale(raw, where, transform or ""))


def with_scores(requests: Sequence[RawRequest], model: Model) -> Sequence[RawRequest]:
    """Let the first stage, if there is one, compute scores that the model reads and are missing."""
    lacking = without_scores(requests, model)
    if not lacking or model.first_stage is None:
        return requests
    whole = list(requests)
    found = model.first_stage.scores([whole[row] for row in lacking])
    for row, scores in zip(lacking, found, strict=True):
        whole[row] = {**whole[row], "scores": scores.tolist()}
    return whole


def without_scores(requests: Sequence[RawRequest], model: Model) -> list[int]:
    """List the requests whose scores the model's first stage must compute."""
    if not model.reads_scores or model.first_stage is None:
        return []
    return [row for row, request in enumerate(requests) if request.get("scores") is None]


def _given(place: str, request: RawRequest, transform: str | None) -> np.ndarray:
    """Return the raw scores of one request, checked; raise `ValueError` if they do not fit."""
    given, count = request.get("scores"), len(request["items"])
    if given is None:
        raise ValueError(f"{place} has no 'scores', which this model reads: give one for each item")
    scores = checked_scores(place, given, count)
    if transform is None and not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError(f"{place}: scores are {given!r}: this model reads scores in [0, 1]")
    return scores
