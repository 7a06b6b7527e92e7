"""The work that is timed: N = 50 candidates, T = 50 events, width 128, 3,500 items."""

from __future__ import annotations

from typing import Any

import numpy as np

from dnr_jax.types import Batch, FeatureSpec, Request

USERS, ITEMS = 6040, 3500
SPEC = FeatureSpec(
    user=("user",),
    context=(),
    history=("item",),
    item=("item",),
    sizes={"user": USERS + 2, "item": ITEMS + 2},
)
# Keywords of `dnr_jax.rerankers.prm`: 2 + 2 layers, 4 heads, feed-forward 128.
PRM: dict[str, Any] = {
    "width": 128,
    "layers": 2,
    "heads": 4,
    "feed_forward": 128,
    "dropout": 0.1,
    "history_layers": 2,
    "positions": "none",
    "causal": False,
    "score_entry": "concatenate",
    "score_place": "late",
}


def make_batch(
    requests: int,
    *,
    candidates: int = 50,
    history: int = 50,
    slate: int = 6,
    items: int = ITEMS,
    seed: int = 0,
) -> Batch:
    """Draw full-length random requests: six shown, labels at one in two of these; NumPy arrays."""
    random = np.random.default_rng(seed)
    shape = (requests, candidates)
    shown = np.argsort(random.random(shape), axis=1)[:, :slate].astype(np.int32)
    exposed = np.zeros(shape, bool)
    np.put_along_axis(exposed, shown, True, axis=1)
    request = Request(
        index=np.arange(requests, dtype=np.uint32),
        user=random.integers(2, USERS + 2, (requests, 1), dtype=np.int32),
        context=np.zeros((requests, 0), np.int32),
        history=random.integers(2, items + 2, (requests, history, 1), dtype=np.int32),
        history_where=np.ones((requests, history), bool),
        candidates=random.integers(2, items + 2, (*shape, 1), dtype=np.int32),
        where=np.ones(shape, bool),
    )
    return Batch(
        request=request,
        scores=random.random(shape, dtype=np.float32),
        labels=(exposed & (random.random(shape) < 0.5)).astype(np.float32),
        exposed=exposed,
        slate=shown,
        weights=np.ones(shape, np.float32),
    )
