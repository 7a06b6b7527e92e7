"""Build candidate sets on disk from lists and first-stage scores, under one of the `protocols`."""

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
from dnr_jax.data import random_exposure, requests
from dnr_jax.data.encoders import KNOWN
from dnr_jax.data.interactions import RandomExposures
from dnr_jax.data.lists import TEST, TRAIN, VALID, Events, Lists
from dnr_jax.data.protocols import (
    CANDIDATES,
    RANDOM_EXPOSURE,
    SAMPLING,
    SCORES,
    CandidateSettings,
    excludes_seen,
)
from dnr_jax.data.settings import Shape
from dnr_jax.data.store import SPLITS, Split, Writer
from dnr_jax.data.tally import Tally
from dnr_jax.types import Array, Batch, Request

CHUNK = 1024

# (users int32 [n], request numbers int [n]) -> raw scores float32 [n, V]; -inf = not retrieved
ScoreRequests = Callable[[np.ndarray, np.ndarray], np.ndarray]
# (raw users int64 [n, 1], raw items int64 [n, N]) -> true relevance float32 [n, N]
Truth = Callable[[np.ndarray, np.ndarray], np.ndarray]


class CandidateRule(NamedTuple):
    """What a candidate set depends on, apart from the lists and raw scores.

    Attributes:
      settings: the protocol, one of `protocols.CANDIDATES`, and its sizes.
      score: a transform of `protocols.SCORES` from raw scores to x in [0, 1], per request.
      seed: seed of the shuffle and of the samples.
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
    random: RandomExposures | None = None,
) -> None:
    """Write the candidate sets of all lists, in chunks, and finish the folder.

    A candidate is positive if the user engages with it in this very list. Each request is
    shuffled once, by its own number and the seed. Training requests without a positive in the
    pool are dropped and counted; in valid and test they stay, for metrics to exclude and count.
    If the rule keeps only the latest share of the training lists, the retriever still learns from
    all of them: in industry, too, it is trained on more data than the reranker.

    Args:
      writer: writes to an empty folder.
      lists: see `lists.build`.
      score: raw scores of all items, in the lists' encoded ids.
      rule: which items of the catalogue are candidates, and how they are scored.
      item_vectors: `float32 [V, d]`, stored for diversity.
      truth: true relevance, where known.
      report: findings to store beside this function's own.
      progress: whether to show a progress bar.
      random: items shown at random: the test requests of the protocol `random_exposure`.

    Raises:
      ValueError: an unknown protocol, or `random_exposure` without `random`; fewer candidates than
        items in the shown list; a raw score that is not finite; a candidate without a
        score (-inf); a split without any request.
    """
    rule, tests, counts = _random_tests(lists, rule, random)
    settings.find("candidate protocol", rule.settings.name, CANDIDATES)
    Shape(rule.settings.size, lists.items.shape[1]).check()
    popularity = lists_.popularity(lists)
    weights = SAMPLING[rule.settings.sampling](popularity)
    found = {}
    bar = tqdm(total=len(lists.user), desc="candidates", unit="list", disable=not progress)
    with bar:
        for number, name in enumerate(SPLITS):
            rows, tally = np.flatnonzero(lists.split == number), Tally()
            if number == TRAIN:
                rows = _latest(lists.time, rows, rule.settings.train_share)
            own = tests if number == TEST else None
            if own is not None:
                rows, lists = np.unique(own.request), random_exposure.after_the_last(lists)
            for start in range(0, len(rows), CHUNK):
                some = rows[start : start + CHUNK]
                chunk = _chunk(lists, score, rule, weights, some, truth, own)
                writer.append(name, _number(tally.keep(chunk, number == TRAIN), tally))
                bar.update(len(some))
            found[name] = tally.report(name)
    chosen = settings.plain(rule.settings) | {"score": rule.score, "seed": rule.seed}
    everything = {"candidates": chosen | counts | found, "lists": lists.report, **report}
    encoders = requests.encoders_of(lists, rule.settings.size)
    writer.finish(encoders, popularity, item_vectors, everything)


def _latest(time: np.ndarray, rows: np.ndarray, share: float) -> np.ndarray:
    """Keep the latest `share` of lists `rows`, at least one, in their order."""
    kept = max(1, round(share * len(rows)))
    return np.sort(rows[np.argsort(time[rows], kind="stable")[len(rows) - kept :]])


def _random_tests(
    lists: Lists, rule: CandidateRule, random: RandomExposures | None
) -> tuple[CandidateRule, Events | None, dict[str, Any]]:
    """Return the rule for training and, if asked for, random-exposure test requests and counts."""
    if rule.settings.name != RANDOM_EXPOSURE:
        return rule, None, {}
    if random is None:
        raise ValueError(
            f"candidates.name is {RANDOM_EXPOSURE}, but the data has nothing that was shown at "
            "random: set data.random_log, or choose another protocol"
        )
    tests, counts = random_exposure.requests(lists, random)
    own = dataclasses.replace(rule.settings, name="retrieved_pool")
    return rule._replace(settings=own), tests, {"test_protocol": RANDOM_EXPOSURE} | counts


def _number(chunk: Split, tally: Tally) -> Split:
    """Number the requests of a chunk, continuing from those already in the split."""
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
    tests: Events | None,
) -> Split:
    """Build the requests of some lists of one split; all arrays are numpy."""
    # Always CHUNK rows, so the program is compiled only once.
    full = np.pad(rows, (0, CHUNK - len(rows)), mode="edge")
    raw = score(lists.user[full], full)
    if not np.isfinite(np.maximum(raw, 0)).all():
        raise ValueError("the retriever gave scores that are not finite: check its training")
    if tests is None:
        chosen, positives = _chosen(lists, rule, weights, full, raw), lists.labels[rows].sum(1)
    else:
        chosen, positives = _shown_at_random(tests, rule, rows, raw, lists.items.shape[1])
    items, where, scores, exposed, labels, slate = (np.array(a)[: len(rows)] for a in chosen)
    _refuse_unscored(lists, rows, raw[: len(rows)], items, where)
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
    relevance = _relevance(truth, catalogue.user_ids[users], catalogue.item_ids[items], where)
    batch = Batch(request=Request(**features), **feedback)
    return Split(batch, rows.astype(np.int64), positives.astype(np.int32), relevance)


def _chosen(
    lists: Lists, rule: CandidateRule, weights: np.ndarray, full: np.ndarray, raw: np.ndarray
) -> tuple[Array, ...]:
    allowed = _allowed(lists, full, excludes_seen(rule.settings.name))
    inputs = (full.astype(np.uint32), raw, allowed, lists.items[full], lists.labels[full])
    chosen: tuple[Array, ...] = _select(
        jax.random.key(rule.seed),
        *inputs,
        weights,
        name=rule.settings.name,
        size=rule.settings.size,
        score=rule.score,
    )
    return chosen


def _shown_at_random(
    tests: Events, rule: CandidateRule, rows: np.ndarray, raw: np.ndarray, slate: int
) -> tuple[tuple[Any, ...], np.ndarray]:
    """Return the output of `_select` for random exposures, and the positives of each request."""
    items, where, labels, shown, positives = random_exposure.choose(
        tests, rows, size=rule.settings.size, slate=slate, seed=rule.seed
    )
    values = np.take_along_axis(np.asarray(raw)[: len(rows)], items, 1)
    scores = SCORES[rule.score](jnp.asarray(values), jnp.asarray(where))
    return (items, where, scores, where, labels, shown), positives


def _refuse_unscored(
    lists: Lists, rows: np.ndarray, raw: np.ndarray, items: np.ndarray, where: np.ndarray
) -> None:
    """Refuse candidates without a first-stage score; an external first stage may leave some out."""
    missing = where & (np.take_along_axis(raw, items, axis=1) == -np.inf)
    if missing.any():
        row, place = np.argwhere(missing)[0]
        user = lists.catalogue.user_ids[lists.user[rows[row]]]
        item = lists.catalogue.item_ids[items[row, place]]
        raise ValueError(
            f"the first stage has no score for {missing.sum()} of {where.sum()} candidates of "
            f"{len(rows)} requests, the first of them item {item} for user {user}: score all "
            "exposed items, or choose candidates.name=retrieved_pool"
        )


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

    Seen items are those of the user's training lists, except the list itself; for a test list,
    those of the validation list as well.
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
