"""Cut interactions into lists of K exposed items, split by time within each user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dnr_jax.data.direct import NEGATIVE
from dnr_jax.data.encoders import KNOWN, UNKNOWN, Vocabulary
from dnr_jax.data.interactions import Features, Interactions, take

TRAIN, VALID, TEST = range(3)  # positions in store.SPLITS
MIN_LISTS = 3
CHUNK = 1 << 14  # lists


class Catalogue(NamedTuple):
    """Users and items by encoded id; every item of the data has an id of its own.

    Attributes:
      user_ids `int64 [U]`, item_ids `int64 [V]`: raw ids; -1 at padding and unknown. If ids are
        text, these are places in the data's own keys.
      users `int32 [U, Fu]`, items `int32 [V, Fi]`: encoded features; column 0 is the id itself.
      user_columns, item_columns: names of the features, `user_id` and `item_id` first.
      vocabularies: raw values by column name; those of the ids are the raw ids.
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    users: np.ndarray
    items: np.ndarray
    user_columns: tuple[str, ...]
    item_columns: tuple[str, ...]
    vocabularies: Mapping[str, Vocabulary]


class Lists(NamedTuple):
    """Requests, sorted by (user, time); the row number is the request's number.

    Attributes:
      user: `int32 [R]`.
      items: `int32 [R, K]`, the exposed items in display (time) order.
      labels: `float32 [R, K]` in {0, 1}.
      history `int32 [R, T]`: items of earlier interactions, left-padded, latest last.
      feedback `int32 [R, T]`: `NEGATIVE`, `POSITIVE`, 0 where padded.
      split: `int8 [R]`, `TRAIN`, `VALID` (a user's last list but one) or `TEST` (the last).
      time: `int64 [R]`, of the first item.
      catalogue: the users and items behind the ids.
      report: JSON-able counts.
    """

    user: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    history: np.ndarray
    feedback: np.ndarray
    split: np.ndarray
    time: np.ndarray
    catalogue: Catalogue
    report: dict[str, Any]


class Events(NamedTuple):
    """The interactions of some lists.

    Attributes:
      user, item: `int32 [M]`, encoded ids.
      label: `float32 [M]` in {0, 1}.
      request: `int32 [M]`, the number of the list that each event belongs to.
    """

    user: np.ndarray
    item: np.ndarray
    label: np.ndarray
    request: np.ndarray


def build(interactions: Interactions, *, slate: int, history: int) -> Lists:
    """Cut each user's rows into consecutive lists of `slate` items.

    The remainder at the end is dropped, and so are users with fewer than three lists. The
    history of a list holds only earlier rows of the same user. If a list starts within a run of
    equal time stamps, file order decides what came before; the report counts such lists.

    Raises:
      ValueError: `slate` or `history` below 1, or no user has three lists.
    """
    if slate < 1 or history < 1:
        raise ValueError(f"slate {slate} and history {history} must both be at least 1")
    counts = np.unique(interactions.user, return_counts=True)[1]
    enough = counts >= MIN_LISTS * slate
    if not enough.any():
        raise ValueError(
            f"no user has {MIN_LISTS} lists of {slate} items; the longest sequence has "
            f"{counts.max()} items"
        )
    kept = take(interactions, np.repeat(enough, counts))
    catalogue = _catalogue(kept)
    starts, bounds, split = _cut(counts[enough], slate)
    report = {
        "users": int(enough.sum()),
        "items": len(catalogue.item_ids) - KNOWN,
        "users_dropped_short": int((~enough).sum()),
        "rows_dropped_tail": int((counts[enough] % slate).sum()),
        "lists": len(starts),
        "positive_rate": float(kept.label.mean()),
        "lists_starting_in_a_tie": _ties(kept.time, starts, bounds),
    }
    return _fill(kept, catalogue, starts, bounds, split, slate, history, report)


def events(lists: Lists, *splits: int) -> Events:
    """Flatten the lists of the given splits (`TRAIN`, `VALID`, `TEST`) to interactions."""
    rows = np.flatnonzero(np.isin(lists.split, splits))
    slate = lists.items.shape[1]
    return Events(
        np.repeat(lists.user[rows], slate),
        lists.items[rows].reshape(-1),
        lists.labels[rows].reshape(-1),
        np.repeat(rows, slate).astype(np.int32),
    )


def origins(lists: Lists) -> np.ndarray:
    """Return the number of the list that each event of a history belongs to: `int32 [R, T]`.

    -1 where padded. A user's lists follow one another without a gap, so the last K events of a
    history are those of the previous list.
    """
    slate, length = lists.items.shape[1], lists.history.shape[1]
    back = 1 + np.arange(length)[::-1] // slate
    own = np.arange(len(lists.user))[:, None] - back
    return np.where(lists.history > 0, own, -1).astype(np.int32)


def popularity(lists: Lists) -> np.ndarray:
    """Count the training interactions of each encoded item: `float32 [V]`."""
    items = events(lists, TRAIN).item
    return np.bincount(items, minlength=len(lists.catalogue.item_ids)).astype(np.float32)


def item_vectors(lists: Lists, *, width: int, seed: int) -> np.ndarray:
    """Describe items by their training users, for diversity: `float32 [V, width]`.

    A random projection of the user-item matrix: inner products approximate the number of shared
    users. It depends on no model, so diversity is comparable between models. Items without a
    training interaction get the zero vector.
    """
    train = events(lists, TRAIN)
    users, items = len(lists.catalogue.user_ids), len(lists.catalogue.item_ids)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (users, width))
    columns = [np.bincount(train.item, signs[train.user, d], items) for d in range(width)]
    return np.asarray(np.stack(columns, 1) / np.sqrt(width), np.float32)


def _cut(counts: np.ndarray, slate: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for every list, its first row, its user's first row, and its split."""
    per_user = counts // slate
    first_rows = np.repeat(np.cumsum(counts) - counts, per_user)
    position = np.arange(per_user.sum()) - np.repeat(np.cumsum(per_user) - per_user, per_user)
    left = np.repeat(per_user, per_user) - position  # 1 for the last list
    split = np.select([left == 1, left == 2], [TEST, VALID], TRAIN).astype(np.int8)
    return first_rows + position * slate, first_rows, split


def _ties(time: np.ndarray, starts: np.ndarray, bounds: np.ndarray) -> int:
    later = starts[starts > bounds]
    return int((time[later] == time[later - 1]).sum())


def _fill(
    rows: Interactions,
    catalogue: Catalogue,
    starts: np.ndarray,
    bounds: np.ndarray,
    split: np.ndarray,
    slate: int,
    history: int,
    report: dict[str, Any],
) -> Lists:
    item = _encoded(catalogue.item_ids, rows.item)
    shown = starts[:, None] + np.arange(slate)
    past, feedback = _before(item, rows.label, starts, bounds, history)
    return Lists(
        user=_encoded(catalogue.user_ids, rows.user[starts]),
        items=item[shown],
        labels=rows.label[shown],
        history=past,
        feedback=feedback,
        split=split,
        time=rows.time[starts],
        catalogue=catalogue,
        report=report,
    )


def _before(
    item: np.ndarray, label: np.ndarray, starts: np.ndarray, bounds: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return history and feedback, built in parts because all 8-byte indices would not be small."""
    history, feedback = (np.zeros((len(starts), length), np.int32) for _ in range(2))
    for part in range(0, len(starts), CHUNK):
        own = slice(part, part + CHUNK)
        before = starts[own, None] + np.arange(-length, 0)
        real = before >= bounds[own, None]
        before = np.maximum(before, 0)
        history[own] = np.where(real, item[before], 0)
        feedback[own] = np.where(real, NEGATIVE + label[before], 0)
    return history, feedback


def _catalogue(rows: Interactions) -> Catalogue:
    user_ids, users, user_words = _side(rows.user, "user_id", rows.user_features, rows.user_keys)
    item_ids, items, item_words = _side(rows.item, "item_id", rows.item_features, rows.item_keys)
    words = user_words | item_words
    return Catalogue(user_ids, item_ids, users, items, tuple(user_words), tuple(item_words), words)


def _encoded(ids: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """Return the places in a catalogue's `ids` of raw ids, all of which are known."""
    return (KNOWN + np.searchsorted(ids[KNOWN:], raw)).astype(np.int32)


def _side(
    raw: np.ndarray, id_name: str, features: Features, keys: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, dict[str, Vocabulary]]:
    """Return raw ids by encoded id, the feature table, and the vocabularies of its columns."""
    known = np.unique(raw)
    ids = np.concatenate([np.full(KNOWN, -1), known]).astype(np.int64)
    own = known.astype(np.int64) if keys is None else keys[known]
    columns, words = [np.arange(len(ids))], {id_name: Vocabulary(own)}
    for name, values in features.items():
        given = [values.get(i) for i in known.tolist()]
        words[name] = Vocabulary(np.array(sorted({v for v in given if v is not None}), np.str_))
        code = {value: KNOWN + n for n, value in enumerate(words[name].keys.tolist())}
        columns.append(np.array([0, UNKNOWN, *(code.get(v, UNKNOWN) for v in given)]))
    return ids, np.stack(columns, 1).astype(np.int32), words
