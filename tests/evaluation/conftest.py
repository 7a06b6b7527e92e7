"""A prepared data set without any flaw, and a way to spoil it."""

import numpy as np
import pytest

from dnr_jax.data.encoders import Encoders
from dnr_jax.data.store import Prepared, Split
from dnr_jax.types import Batch, FeatureSpec, Request

N, K, T = 20, 6, 5
ITEMS = 4000


def make_split(rng, requests, first_user, first_id, quality=1.0):
    """Draw a split whose scores tell positives by `quality` standard deviations."""
    # Test and training users differ, so no pair can stand in both.
    users = first_user + np.arange(requests, dtype=np.int32)[:, None]
    items = np.stack([rng.choice(ITEMS - T - 2, N + T, replace=False) for _ in range(requests)]) + 2
    real = rng.integers(12, N + 1, requests)
    where = np.arange(N) < real[:, None]
    labels = (np.argsort(np.argsort(rng.random((requests, N)) + ~where)) < 3).astype(np.float32)
    labels[: requests // 10] = 0  # requests without a positive in the pool
    noise = rng.normal(size=(requests, N))
    scores = 1 / (1 + np.exp(-(quality * labels + noise)))
    request = Request(
        index=np.arange(requests, dtype=np.uint32),
        user=users,
        context=np.zeros((requests, 0), np.int32),
        history=items[:, N:, None].astype(np.int32),
        history_where=np.ones((requests, T), bool),
        candidates=np.where(where, items[:, :N], 0)[..., None].astype(np.int32),
        where=where,
    )
    batch = Batch(
        request=request,
        scores=np.where(where, scores, 0).astype(np.float32),
        labels=labels,
        exposed=where & ((labels > 0) | (np.random.default_rng(1).random((requests, N)) < 0.1)),
        slate=np.full((requests, K), -1, np.int32),
        weights=where.astype(np.float32),
    )
    ids = first_id + np.arange(requests)
    positives = labels.sum(axis=1).astype(np.int32) + 1
    truth = np.where(where, scores, np.nan).astype(np.float32)
    return Split(batch, ids, positives, truth)


def make_prepared(seed=0, quality=1.0, requests=600):
    """Build three clean splits."""
    rng = np.random.default_rng(seed)
    splits = {
        name: make_split(rng, requests, 2 + i * requests, i * requests, quality)
        for i, name in enumerate(("train", "valid", "test"))
    }
    spec = FeatureSpec(("user",), (), ("item",), ("item",), {"user": 9999, "item": ITEMS})
    popularity = rng.integers(0, 50, ITEMS).astype(np.float32)
    vectors = rng.normal(size=(ITEMS, 8)).astype(np.float32)
    encoders = Encoders(spec, N, T, {}, {}, {})
    return Prepared(spec, splits, popularity, vectors, {}, encoders)


@pytest.fixture(scope="session")
def prepared():
    """Hand out the clean data set; tests must not write into its arrays."""
    return make_prepared()


@pytest.fixture(scope="session")
def large():
    """Hand out a data set of ten thousand requests."""
    return make_prepared(requests=3400)


@pytest.fixture(scope="session")
def inverted():
    """Hand out a data set whose scores are low for positives."""
    return make_prepared(quality=-2.0)


def spoil(prepared, name, **changes):
    """Copy `prepared` with arrays of split `name` replaced, given by field name."""
    split = prepared.splits[name]
    for field, value in changes.items():
        if field in Split._fields:
            split = split._replace(**{field: value})
        elif field in Request.__dataclass_fields__:
            request = split.batch.request.replace(**{field: value})
            split = split._replace(batch=split.batch.replace(request=request))
        else:
            split = split._replace(batch=split.batch.replace(**{field: value}))
    return prepared._replace(splits=prepared.splits | {name: split})


@pytest.fixture(scope="session")
def spoiled():
    """Hand out `spoil`."""
    return spoil
