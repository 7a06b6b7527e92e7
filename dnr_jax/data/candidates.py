"""Lists + first-stage scores -> candidate sets on disk, under one of the `protocols`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from dnr_jax import ops, settings
from dnr_jax.data import lists as lists_
from dnr_jax.data import requests
from dnr_jax.data.encoders import KNOWN
from dnr_jax.data.lists import TRAIN, VALID, Lists
from dnr_jax.data.protocols import (
    CANDIDATES,
    SAMPLING,
    SCORES,
    CandidateSettings,
    excludes_seen,
)
from dnr_jax.data.settings import Shape
from dnr_jax.data.store import SPLITS, Split, Writer
from dnr_jax.types import Array, Batch, Request

CHUNK = 1024

# (users int32 [n], request numbers int [n]) -> raw scores float32 [n, V]
ScoreRequests = Callable[[np.ndarray, np.ndarray], np.ndarray]
# (raw users int64 [n, 1], raw items int64 [n, N]) -> true relevance float32 [n, N]
Truth = Callable[[np.ndarray, np.ndarray], np.ndarray]


class CandidateRule(NamedTuple):
    """What a candidate set depends on besides lists and raw scores.

    Attributes:
      settings: the protocol, one of `protocols.CANDIDATES`, and its sizes.
      score: a transform of `protocols.SCORES` from raw scores to x in [0, 1], per request.
      seed: of the shuffle and of the samples.
    """

    settings: CandidateSettings
    score: str
    seed: int


def build(
    writer: Writer,
    lists: Lists,
    score: ScoreRequests,
    rule: CandidateRule,
    *,
    item_vectors: np.ndarray,
    truth: Truth | None,
    report: Mapping[str, Any],
    progress: bool,
) -> None:
    """Write the candidate sets of all lists, in chunks, and finish the folder.

    A candidate is positive if the user engages with it in this very list. Each request is
    shuffled once, by its own number and the seed. Training requests without a positive in the
    pool are dropped and counted; in valid and test they stay, for metrics to exclude and count.

    Args:
      writer: of an empty folder.
      lists: see `lists.build`.
      score: raw scores of all items, in the lists' encoded ids.
      rule: which items of the catalogue are candidates, and how they are scored.
      item_vectors: `float32 [V, d]`, stored for diversity.
      truth: true relevance, where known.
      report: findings to store beside this function's own.
      progress: shows a bar.

    Raises:
      ValueError: an unknown protocol; fewer candidates than the shown list; a raw score that is
        not finite; a split that ends up without any request.
    """
    settings.find("candidate protocol", rule.settings.name, CANDIDATES)
    Shape(rule.settings.size, lists.items.shape[1]).check()
    popularity = lists_.popularity(lists)
    weights = SAMPLING[rule.settings.sampling](popularity)
    found = {}
    bar = tqdm(total=len(lists.user), desc="candidates", unit="list", disable=not progress)
    with bar:
        for number, name in enumerate(SPLITS):
            rows = np.flatnonzero(lists.split == number)
            tally = Tally()
            for start in range(0, len(rows), CHUNK):
                some = rows[start : start + CHUNK]
                chunk = _chunk(lists, score, rule, weights, some, truth)
                writer.append(name, _number(tally.keep(chunk, number == TRAIN), tally))
                bar.update(len(some))
            found[name] = tally.report(name)
    chosen = settings.plain(rule.settings) | {"score": rule.score, "seed": rule.seed}
    everything = {"candidates": chosen | found, "lists": lists.report, **report}
    encoders = requests.encoders_of(lists, rule.settings.size)
    writer.finish(encoders, popularity, item_vectors, everything)


class Tally:
    """Counts what a split's candidate sets hold."""

    def __init__(self) -> None:
        self.written = 0
        self._lists = self._without = self._masked = 0
        self._positives = self._found = 0.0

    def keep(self, chunk: Split, train: bool) -> Split:
        """Count a chunk; without requests that have no positive in the pool if `train`."""
        inside = np.asarray(chunk.batch.labels).sum(1)
        self._lists += len(inside)
        self._without += int((inside == 0).sum())
        self._found += float(inside.sum())
        self._positives += float(chunk.positives.sum())
        self._masked += int((~np.asarray(chunk.batch.request.where)).sum())
        return jax.tree.map(lambda a: a[inside > 0], chunk) if train else chunk

    def report(self, split: str) -> dict[str, Any]:
        """Return the counts as JSON-able numbers.

        Raises:
          ValueError: nothing can be trained or measured, as no request has a positive.
        """
        if not self._found:
            cure = (
                "Raise candidates.size or improve the retriever"
                if self._positives
                else "None has a positive at all: lower what counts as positive, or add data"
            )
            raise ValueError(
                f"no {split} request is left: of {self._lists} lists {self._without} have no "
                f"positive among their candidates. {cure}"
            )
        return {
            "lists": self._lists,
            "requests": self.written,
            "without_positive_in_pool": self._without,
            "dropped": self._lists - self.written,
            "positives_per_list": self._positives / self._lists,
            "recall_of_positives": self._found / max(self._positives, 1.0),
            "masked_candidates": self._masked,
        }


def _number(chunk: Split, tally: Tally) -> Split:
    """Number the requests of a chunk on from what the split holds."""
    count = len(chunk.request_id)
    index: Any = np.arange(tally.written, tally.written + count, dtype=np.uint32)
    tally.written += count
    request = dataclasses.replace(chunk.batch.request, index=index)
    return chunk._replace(batch=dataclasses.replace(chunk.batch, request=request))


@functools.partial(jax.jit, static_argnames=("name", "size", "score"))
def _select(
    key: Array,
    numbers: Array,
    raw: Array,
    allowed: Array,
    shown: Array,
    feedback: Array,
    weights: Array,
    *,
    name: str,
    size: int,
    score: str,
) -> tuple[Array, ...]:
    """Pick, shuffle and label the candidates of requests `numbers` `uint32 [n]`.

    Returns items, where, scores, exposed, labels `[n, N]` and slate `[n, K]`.
    """

    def one(key: Array, raw: Array, allowed: Array, shown: Array, feedback: Array) -> Any:
        pick_key, order_key = jax.random.split(key)
        items, where = CANDIDATES[name](pick_key, raw, allowed, shown, weights, size=size)
        # Padding goes last; the real candidates are in uniform random order.
        order = jnp.argsort(jax.random.uniform(order_key, where.shape) + 2.0 * ~where)
        items, where = jnp.where(where, items, 0)[order], where[order]
        same = (shown[:, None] == items) & where
        slate = jnp.where(same.any(1), jnp.argmax(same, axis=1), -1).astype(jnp.int32)
        return items, where, raw[items], same.any(0), feedback @ same, slate

    picked = ops.per_request(one, key, numbers, raw, allowed, shown, feedback)
    items, where, values, exposed, labels, slate = picked
    return items, where, SCORES[score](values, where), exposed, labels, slate


def _chunk(
    lists: Lists,
    score: ScoreRequests,
    rule: CandidateRule,
    weights: np.ndarray,
    rows: np.ndarray,
    truth: Truth | None,
) -> Split:
    """Build the requests of some lists of one split; all arrays are numpy."""
    # Always CHUNK rows, so that the program is compiled once.
    full = np.pad(rows, (0, CHUNK - len(rows)), mode="edge")
    raw = score(lists.user[full], full)
    if not np.isfinite(raw).all():
        raise ValueError("the retriever gave scores that are not finite: check its training")
    allowed = _allowed(lists, full, excludes_seen(rule.settings.name))
    inputs = (full.astype(np.uint32), raw, allowed, lists.items[full], lists.labels[full])
    items, where, scores, exposed, labels, slate = (
        np.array(a)[: len(rows)]
        for a in _select(
            jax.random.key(rule.seed),
            *inputs,
            weights,
            name=rule.settings.name,
            size=rule.settings.size,
            score=rule.score,
        )
    )
    catalogue, users = lists.catalogue, lists.user[rows]
    features: dict[str, Any] = {
        "index": np.zeros(len(rows), np.uint32),
        "user": catalogue.users[users],
        "context": np.zeros((len(rows), 0), np.int32),
        "history": np.stack([lists.history[rows], lists.feedback[rows]], -1),
        "history_where": lists.history[rows] > 0,
        "candidates": catalogue.items[items],
        "where": where,
    }
    feedback: dict[str, Any] = {
        "scores": scores,
        "labels": labels,
        "exposed": exposed,
        "slate": slate,
        "weights": where.astype(np.float32),
    }
    positives = lists.labels[rows].sum(1).astype(np.int32)
    relevance = _relevance(truth, catalogue.user_ids[users], catalogue.item_ids[items], where)
    batch = Batch(request=Request(**features), **feedback)
    return Split(batch, rows.astype(np.int64), positives, relevance)


def _relevance(
    truth: Truth | None, users: np.ndarray, items: np.ndarray, where: np.ndarray
) -> np.ndarray:
    unknown = np.full(items.shape, np.nan, np.float32)
    if truth is None:
        return unknown
    known = np.where(where, items, items[:, :1])  # padding has no raw id to look up
    return np.where(where, truth(users[:, None], known), unknown).astype(np.float32)


def _allowed(lists: Lists, rows: np.ndarray, exclude_seen: bool) -> np.ndarray:
    """Mark the items that lists `rows`, all of one split, may offer: `bool [n, V]`.

    Seen are the items of the user's training lists, but not of the list itself; for a test list
    also those of his validation list.
    """
    allowed = np.ones((len(rows), len(lists.catalogue.item_ids)), bool)
    allowed[:, :KNOWN] = False
    if not exclude_seen:
        return allowed
    last = TRAIN if lists.split[rows[0]] <= VALID else VALID
    seen = np.flatnonzero(lists.split <= last)
    owners, users = lists.user[seen], lists.user[rows]
    left = np.searchsorted(owners, users, "left")
    counts = np.searchsorted(owners, users, "right") - left
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    row = np.repeat(np.arange(len(rows)), counts)
    allowed[row[:, None], lists.items[seen[np.repeat(left, counts) + offsets]]] = False
    allowed[np.arange(len(rows))[:, None], lists.items[rows]] = True
    return allowed
