"""The three protocols against their definitions, in plain numpy on small data."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dnr_jax.data import candidates, protocols, store
from dnr_jax.data import lists as lists_
from dnr_jax.data.interactions import Interactions
from dnr_jax.data.lists import TEST, TRAIN, VALID
from dnr_jax.data.protocols import CandidateSettings

SLATE, ITEMS = 3, 40


def rule(*, score="minmax", seed=3, **knobs):
    settings = CandidateSettings(**{"name": "retrieved_pool", "size": 8} | knobs)
    return candidates.CandidateRule(settings, score, seed)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(candidates, "CHUNK", 128)


@pytest.fixture(scope="module")
def lists():
    draw = np.random.default_rng(0)
    counts = draw.integers(9, 22, 30)
    item = np.concatenate([draw.permutation(ITEMS)[:n] for n in counts])
    label = (draw.random(len(item)) < 0.6).astype(np.float32)
    features = {"genre": {i: "ab"[i % 2] for i in range(ITEMS)}}
    user = np.repeat(np.arange(30), counts)
    rows = Interactions(user, item, label, np.arange(len(item)), {}, features, {})
    return lists_.build(rows, slate=SLATE, history=5)


@pytest.fixture(scope="module")
def raw(lists):
    shape = (len(lists.catalogue.user_ids), len(lists.catalogue.item_ids))
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def build(folder, lists, raw, rule, **changes):
    given = {
        "item_vectors": lists_.item_vectors(lists, width=4, seed=0),
        "truth": None,
        "report": {"retriever": {}},
        "progress": False,
    } | changes
    candidates.build(store.Writer(folder), lists, lambda users, requests: raw[users], rule, **given)
    return store.load(folder)


def met_before(lists, row):
    """Items that request `row` may not offer, by definition."""
    same = lists.user == lists.user[row]
    if lists.split[row] == TRAIN:
        other = same & (lists.split == TRAIN) & (np.arange(len(same)) != row)
    else:
        other = same & (np.arange(len(same)) < row)
    return set(lists.items[other].ravel().tolist())


def rows_of(prepared):
    for split in store.SPLITS:
        part = prepared.splits[split]
        for n, row in enumerate(part.request_id):
            yield split, part, n, int(row)


@pytest.mark.parametrize("name", sorted(protocols.CANDIDATES))
def test_candidates_follow_the_definition(tmp_path, lists, raw, name):
    prepared = build(tmp_path / "out", lists, raw, rule(name=name))
    for _, part, n, row in rows_of(prepared):
        batch = part.batch
        found = np.asarray(batch.request.candidates[n, :, 0])
        shown, scores = lists.items[row], raw[lists.user[row]]
        closed = set() if name == "exposed_plus_retrieved" else met_before(lists, row)
        free = [i for i in range(2, ITEMS + 2) if i not in closed]
        best = sorted(free, key=lambda i: -scores[i])
        if name == "retrieved_pool":
            expected = set(best[:8])
        else:
            others = [i for i in best if i not in shown]
            expected = set(shown.tolist()) | set(others[:5])
        assert len(set(found.tolist())) == 8
        if name == "exposed_plus_sampled":
            assert set(shown.tolist()) <= set(found.tolist()) <= set(free)
        else:
            assert set(found.tolist()) == expected
        feedback = dict(zip(shown.tolist(), lists.labels[row].tolist(), strict=True))
        np.testing.assert_array_equal(batch.labels[n], [feedback.get(i, 0.0) for i in found])
        np.testing.assert_array_equal(batch.exposed[n], np.isin(found, shown))
        place = {i: p for p, i in enumerate(found.tolist())}
        np.testing.assert_array_equal(batch.slate[n], [place.get(i, -1) for i in shown.tolist()])
        values = scores[found]
        scaled = (values - values.min()) / (values.max() - values.min())
        np.testing.assert_allclose(batch.scores[n], scaled, atol=1e-6)
        assert batch.weights[n].all()
        assert batch.request.where[n].all()
        assert part.positives[n] == lists.labels[row].sum()
        assert np.isnan(part.truth[n]).all()


def test_requests_are_complete_numbered_and_described(tmp_path, lists, raw):
    prepared = build(tmp_path / "out", lists, raw, rule())
    for number, split in enumerate(store.SPLITS):
        part, found = prepared.splits[split], prepared.report["candidates"][split]
        rows = np.flatnonzero(lists.split == number)
        request = part.batch.request
        np.testing.assert_array_equal(request.index, np.arange(len(part.request_id)))
        np.testing.assert_array_equal(request.user[:, 0], lists.user[part.request_id])
        np.testing.assert_array_equal(request.history[..., 0], lists.history[part.request_id])
        np.testing.assert_array_equal(request.history[..., 1], lists.feedback[part.request_id])
        np.testing.assert_array_equal(request.history_where, request.history[..., 0] > 0)
        genre = lists.catalogue.items[request.candidates[..., 0], 1]
        np.testing.assert_array_equal(request.candidates[..., 1], genre)
        assert request.context.shape == (len(part.request_id), 0)
        inside = np.asarray(part.batch.labels).sum(1)
        if number == TRAIN:
            assert inside.all()
            assert found["dropped"] == found["without_positive_in_pool"] > 0
        else:
            np.testing.assert_array_equal(part.request_id, rows)
            assert found["without_positive_in_pool"] == (inside == 0).sum() > 0
        assert found["lists"] == len(rows) == found["requests"] + found["dropped"]
        positives = lists.labels[rows].sum()
        assert found["recall_of_positives"] == pytest.approx(inside.sum() / positives)
    assert prepared.spec.history == ("item_id", "feedback")
    assert prepared.spec.item == ("item_id", "genre")
    assert prepared.spec.sizes == {"user_id": 32, "item_id": 42, "genre": 4, "feedback": 4}
    np.testing.assert_array_equal(prepared.item_popularity, lists_.popularity(lists))


@pytest.mark.parametrize("name", ["exposed_plus_sampled", "retrieved_pool"])
def test_a_request_does_not_depend_on_its_chunk_but_on_the_seed(
    tmp_path, lists, raw, name, monkeypatch
):
    first = build(tmp_path / "a", lists, raw, rule(name=name))
    monkeypatch.setattr(candidates, "CHUNK", 50)
    second = build(tmp_path / "b", lists, raw, rule(name=name))
    other = build(tmp_path / "c", lists, raw, rule(name=name, seed=4))
    for split in store.SPLITS:
        left, right = (jax.tree.leaves(p.splits[split]) for p in (first, second))
        for a, b in zip(left, right, strict=True):
            np.testing.assert_array_equal(a, b)
    a, b = (p.splits["test"].batch.request.candidates for p in (first, other))
    assert (np.asarray(a) != np.asarray(b)).any()


def test_positions_of_the_exposed_are_uniform_and_differ_by_request():
    rows, size, items = 4000, 10, 30
    shown = np.tile(np.arange(2, 2 + SLATE, dtype=np.int32), (rows, 1))
    allowed = np.ones((rows, items), bool)
    raw = np.tile(np.linspace(0, 1, items, dtype=np.float32), (rows, 1))
    numbers, feedback = np.arange(rows, dtype=np.uint32), np.ones((rows, SLATE), np.float32)
    weights = np.ones(items, np.float32)
    named = {"name": "exposed_plus_retrieved", "size": size, "score": "minmax"}
    inputs = (numbers, raw, allowed, shown, feedback, weights)
    *_, slate = candidates._select(jax.random.key(0), *inputs, **named)
    for place in np.asarray(slate).T:
        assert stats.chisquare(np.bincount(place, minlength=size)).pvalue > 1e-4
    pairs = np.bincount(slate[:, 0] * size + slate[:, 1], minlength=size * size)
    pairs = pairs.reshape(size, size)[~np.eye(size, dtype=bool)]
    assert stats.chisquare(pairs).pvalue > 1e-4


def test_too_few_items_are_masked_last(tmp_path, lists, raw):
    prepared = build(tmp_path / "out", lists, raw, rule(size=50))
    for _, part, n, row in rows_of(prepared):
        free = ITEMS - len(met_before(lists, row))
        batch = part.batch
        np.testing.assert_array_equal(batch.request.where[n], np.arange(50) < free)
        padded = ~np.asarray(batch.request.where[n])
        for array in (batch.scores, batch.labels, batch.weights, batch.exposed):
            assert not np.asarray(array[n])[padded].any()
        assert not np.asarray(batch.request.candidates[n])[padded].any()
        assert np.asarray(batch.slate[n]).min() >= 0  # everything unseen is in the pool
    assert prepared.report["candidates"]["test"]["recall_of_positives"] == 1.0


def test_a_share_of_the_training_lists_are_the_latest_of_all_users(tmp_path, lists, raw):
    whole = build(tmp_path / "all", lists, raw, rule())
    part = build(tmp_path / "half", lists, raw, rule(train_share=0.5))
    own = np.flatnonzero(lists.split == TRAIN)
    latest = sorted(own, key=lambda row: lists.time[row])[len(own) - round(len(own) / 2) :]
    kept, every = (p.splits["train"] for p in (part, whole))
    assert set(kept.request_id) == set(latest) & set(every.request_id)
    assert kept.request_id.tolist() == sorted(kept.request_id)
    at = np.searchsorted(every.request_id, kept.request_id)
    np.testing.assert_array_equal(kept.batch.scores, every.batch.scores[at])
    for split in ("valid", "test"):
        ids = (p.splits[split].request_id for p in (part, whole))
        np.testing.assert_array_equal(*ids)
    np.testing.assert_array_equal(part.item_popularity, whole.item_popularity)


def test_sampling_frequencies():
    items, rows = 12, 20000
    weights = np.array([0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0], np.float32)
    shown, allowed = jnp.arange(2, 5), jnp.ones(items, bool).at[:2].set(False)

    def draw(key, weights):
        return protocols.exposed_plus_sampled(
            key, jnp.zeros(items), allowed, shown, weights, size=4
        )[0][3]

    keys = jax.random.split(jax.random.key(0), rows)
    for given in (weights, np.ones(items, np.float32)):
        drawn = jax.jit(jax.vmap(draw, (0, None)))(keys, jnp.asarray(given))
        free = given * (np.arange(items) > 4)
        expected = rows * free / free.sum()
        counted = np.bincount(drawn, minlength=items)
        assert (counted[free == 0] == 0).all()
        assert stats.chisquare(counted[free > 0], expected[free > 0]).pvalue > 1e-4


def test_score_transforms():
    raw = jnp.array([[3.0, -1.0, 1.0, 9.0], [2.0, 2.0, 5.0, 7.0]])
    where = jnp.array([[True, True, True, False], [True, True, False, False]])
    expected = {
        "minmax": [[1, 0, 0.5, 0], [0.5, 0.5, 0, 0]],
        "rank": [[1, 0, 0.5, 0], [1, 0, 0, 0]],
        "sigmoid": [[0.9525741, 0.2689414, 0.7310586, 0], [0.8807971, 0.8807971, 0, 0]],
    }
    assert sorted(expected) == sorted(protocols.SCORES)
    for name, values in expected.items():
        np.testing.assert_allclose(protocols.SCORES[name](raw, where), values, atol=1e-6)
    one = jnp.array([[True, False, False, False]])
    np.testing.assert_array_equal(protocols.SCORES["rank"](raw[:1], one), [[1, 0, 0, 0]])


def test_truth_is_looked_up_by_raw_id(tmp_path, lists, raw):
    def truth(user, item):
        assert (item >= 0).all()
        return (user + item / 100).astype(np.float32)

    prepared = build(tmp_path / "out", lists, raw, rule(size=45), truth=truth)
    part = prepared.splits["test"]
    where = np.asarray(part.batch.request.where)
    items = lists.catalogue.item_ids[part.batch.request.candidates[..., 0]]
    users = lists.catalogue.user_ids[part.batch.request.user[:, :1]]
    np.testing.assert_allclose(part.truth[where], (users + items / 100)[where], rtol=1e-6)
    assert np.isnan(part.truth[~where]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "logged"}, r"'logged'.*exposed_plus_retrieved.*retrieved_pool"),
        ({"name": "retrieved_pol"}, r"did you mean 'retrieved_pool'\?"),
        ({"sampling": "zipf"}, "sampling is 'zipf': it must be one of uniform, popularity"),
        ({"size": 1}, "size is 1: it must be 2 or more"),
        ({"size": 2}, "candidates.size is 2, too small for a shown list of 3"),
    ],
)
def test_bad_settings_are_named(tmp_path, lists, raw, changes, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "out", lists, raw, rule(**changes))


def test_bad_scores_and_empty_training_are_refused(tmp_path, lists, raw):
    with pytest.raises(ValueError, match="not finite"):
        build(tmp_path / "a", lists, np.full_like(raw, np.nan), rule())
    none = lists._replace(labels=np.zeros_like(lists.labels))
    with pytest.raises(ValueError, match=r"no train request is left.*None has a positive at all"):
        build(tmp_path / "b", none, raw, rule())


def test_scorer_sees_the_request_numbers(tmp_path, lists, raw):
    seen = []

    def score(users, requests):
        np.testing.assert_array_equal(lists.user[requests], users)
        seen.append(np.unique(requests))
        return raw[users]

    vectors = np.zeros((ITEMS + 2, 2), np.float32)
    candidates.build(
        store.Writer(tmp_path / "out"),
        lists,
        score,
        rule(),
        item_vectors=vectors,
        truth=None,
        report={},
        progress=False,
    )
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(len(lists.user)))
    assert [set(lists.split[s]) for s in seen] == [{TRAIN}, {VALID}, {TEST}]


@pytest.mark.parametrize("split", [VALID, TEST])
def test_a_split_without_positives_is_refused_with_its_cause(tmp_path, lists, raw, split):
    labels = np.where((lists.split == split)[:, None], 0, lists.labels).astype(np.float32)
    name = store.SPLITS[split]
    with pytest.raises(ValueError, match=rf"no {name} request is left.*lower what counts"):
        build(tmp_path / "a", lists._replace(labels=labels), raw, rule())
    far = raw.copy()
    rows = np.flatnonzero(lists.split == split)
    far[lists.user[rows][:, None], lists.items[rows]] = -99
    with pytest.raises(ValueError, match=rf"no {name} request is left.*Raise candidates\.size"):
        build(tmp_path / "b", lists, far, rule(size=3))
