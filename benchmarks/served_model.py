"""A model folder like one from training, with random parameters, and requests for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.standard_case import PRM
from dnr_jax import rerankers, sealed
from dnr_jax.data import encoders
from dnr_jax.data.encoders import Encoders, Vocabulary
from dnr_jax.data.table.scales import Scale, plain
from dnr_jax.io import model_files
from dnr_jax.io.run_folder import CATALOGUE, ENCODERS
from dnr_jax.types import FeatureSpec, Request, Task

USERS, ITEMS, BRANDS, EVENTS, CANDIDATES = 6040, 3500, 200, 50, 50
# 3 layers over the candidates and 1 over the history, 64 wide.
KNOBS = PRM | {"width": 64, "layers": 3, "history_layers": 1, "feed_forward": 64}


def make(folder: Path, **knobs: Any) -> Path:
    """Write a PRM for N = 50 candidates with a brand and a price, and T = 50 events."""
    prm, known = {**KNOBS, **knobs}, _encoders()
    task = Task(known.spec)
    reranker = rerankers.build("prm", task, **prm)
    params = reranker.init(jax.random.key(0), _example(), np.zeros((1, CANDIDATES), np.float32))
    folder.mkdir(parents=True)
    known.save(folder / ENCODERS)
    arrays = {"item_popularity": np.ones(ITEMS + 2), "item_vectors": np.zeros((ITEMS + 2, 1))}
    np.savez(folder / CATALOGUE, **arrays)  # type: ignore[arg-type]
    card = {
        "row": "score",
        "reranker": {"name": "prm", **prm},
        "dtype": "float32",
        "deployed_order": "logits",
        "seed": 0,
        "task": {"slate_size": task.slate_size, "seed": 0, "sizes": dict(known.spec.sizes)},
        "data": {"name": "table", "fingerprint": ""},
        "score": "minmax",
        "encoders_sha256": sealed.digest(folder / ENCODERS / encoders.FILE),
        "catalogue_sha256": sealed.digest(folder / CATALOGUE),
    }
    model_files.save(folder, card, params)
    return folder


def _encoders() -> Encoders:
    counts = {"user_id": USERS, "item_id": ITEMS, "i_brand": BRANDS}
    words = {name: Vocabulary(np.arange(count)) for name, count in counts.items()}
    price = Scale(knots=tuple(np.linspace(0, 100, 65)), shares=tuple(np.linspace(0, 1, 65)))
    spec = FeatureSpec(
        user=("user_id",),
        context=(),
        history=("item_id",),
        item=("item_id", "i_brand"),
        sizes={name: one.size for name, one in words.items()},
        item_numbers=("i_price",),
    )
    transforms = {
        "score": "minmax",
        "kinds": {"i_brand": "id", "i_price": "numeric"},
        "widths": {"user": {}, "context": {}, "item": {"i_brand": 1}},
        "numbers": {},
        "item_numbers": plain({"i_price": price}),
    }
    return Encoders(spec, CANDIDATES, EVENTS, words, {}, transforms)


def _example() -> Request:
    return Request(
        index=np.zeros(1, np.uint32),
        user=np.ones((1, 1), np.int32),
        context=np.zeros((1, 0), np.int32),
        history=np.ones((1, EVENTS, 1), np.int32),
        history_where=np.ones((1, EVENTS), bool),
        candidates=np.ones((1, CANDIDATES, 2), np.int32),
        where=np.ones((1, CANDIDATES), bool),
        item_numbers=np.zeros((1, CANDIDATES, 1), np.float32),
    )


def ask(seed: int, candidates: int = CANDIDATES) -> dict[str, Any]:
    """Draw a request in the service's format, with a full history."""
    random = np.random.default_rng(seed)
    items = random.permutation(ITEMS)[:candidates].tolist()
    scores, prices = random.random(candidates).tolist(), (100 * random.random(candidates)).tolist()
    return {
        "id": f"request {seed}",
        "user": int(random.integers(USERS)),
        "timestamp": 1_700_000_000 + seed,
        "history": random.integers(ITEMS, size=EVENTS).tolist(),
        "items": [
            {"id": i, "score": s, "fields": {"i_brand": i % BRANDS, "i_price": round(p, 2)}}
            for i, s, p in zip(items, scores, prices, strict=True)
        ],
    }
