"""Items shown uniformly at random as test requests: candidates that no policy has chosen.

Feedback on them is not biased by any first stage or earlier ranking (Gao et al. 2022,
arXiv 2208.08696). A user's random exposures form one request after all of the user's lists, none
of which is then used for testing.
"""

from __future__ import annotations

import numpy as np

from dnr_jax.data.direct import NEGATIVE
from dnr_jax.data.encoders import KNOWN
from dnr_jax.data.hashing import mix
from dnr_jax.data.interactions import RandomExposures
from dnr_jax.data.lists import TEST, Events, Lists, events

ORDER = 5  # stream of `mix`


def requests(lists: Lists, random: RandomExposures) -> tuple[Events, dict[str, int]]:
    """Give random exposures the number of their user's last list; sort them by it and by time.

    Returns them, and counts of those left out: those with a user or item that is in no list, and
    pairs that are also in the user's lists (a retriever has been trained on them).

    Raises:
      ValueError: no random exposure is left.
    """
    users, items = lists.catalogue.user_ids[KNOWN:], lists.catalogue.item_ids[KNOWN:]
    user, known_user = _encoded(users, random.user)
    item, known_item = _encoded(items, random.item)
    met = events(lists, *np.unique(lists.split))
    pair = user.astype(np.int64) * (len(items) + KNOWN) + item
    seen = np.isin(pair, met.user.astype(np.int64) * (len(items) + KNOWN) + met.item)
    keep = known_user & known_item & ~seen
    if not keep.any():
        raise ValueError(
            "no random exposure is left: none has both its user and its item in the standard log"
        )
    last = np.flatnonzero(lists.split == TEST)  # one per user, sorted by user
    number = last[np.searchsorted(lists.user[last], user[keep])]
    order = np.lexsort((random.time[keep], number))
    label = random.label[keep].astype(np.float32)
    found = Events(*(a[order] for a in (user[keep], item[keep], label, number.astype(np.int32))))
    counts = {
        "random_exposures": len(keep),
        "of_unknown_users": int((~known_user).sum()),
        "of_unknown_items": int((known_user & ~known_item).sum()),
        "met_before": int((known_user & known_item & seen).sum()),
    }
    return found, counts


def _encoded(ids: np.ndarray, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    place = np.minimum(np.searchsorted(ids, raw), len(ids) - 1)
    return (KNOWN + place).astype(np.int32), ids[place] == raw


def after_the_last(lists: Lists) -> Lists:
    """Append each list's own items to its history: what came before the random exposures."""
    length = lists.history.shape[1]
    met = np.concatenate([lists.history, lists.items], 1)
    liked = np.concatenate([lists.feedback, (NEGATIVE + lists.labels).astype(np.int32)], 1)
    return lists._replace(history=met[:, -length:], feedback=liked[:, -length:])


def choose(
    random: Events, rows: np.ndarray, *, size: int, slate: int, seed: int
) -> tuple[np.ndarray, ...]:
    """Make the candidates of requests `rows` `int [n]`: the user's exposures, in random order.

    If there are more than `size`, a random subset is kept. Returns items `int32 [n, N]`, where
    `bool [n, N]`, labels `float32 [n, N]`, slate `int32 [n, K]` (the first in time), and positives
    `int32 [n]` among all exposures of the request.
    """
    some = np.flatnonzero(np.isin(random.request, rows))
    row = np.searchsorted(rows, random.request[some])
    draw = mix(seed, ORDER, random.request[some], random.item[some])
    order = np.lexsort((draw, row))
    column = np.empty(len(some), np.int64)
    starts = np.searchsorted(row, np.arange(len(rows)))
    column[order] = np.arange(len(some)) - starts[row]  # `row` is sorted
    kept = column < size
    place = row[kept], column[kept]
    items = np.zeros((len(rows), size), np.int32)
    where, labels = np.zeros(items.shape, bool), np.zeros(items.shape, np.float32)
    items[place], where[place], labels[place] = (
        random.item[some][kept],
        True,
        random.label[some][kept],
    )
    shown = np.full((len(rows), slate), -1, np.int32)
    rank = np.arange(kept.sum()) - np.searchsorted(row[kept], np.arange(len(rows)))[row[kept]]
    first = rank < slate
    shown[row[kept][first], rank[first]] = column[kept][first]
    positives = np.bincount(row, random.label[some], len(rows)).astype(np.int32)
    return items, where, labels, shown, positives
