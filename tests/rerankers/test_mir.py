"""MIR's own properties: a list of events, a set of candidates, and the decay between them."""

from functools import cache

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax import types
from dnr_jax.nn.dropout import identity
from dnr_jax.nn.history_tokens import HistoryRequestEncoder
from dnr_jax.nn.trunk import Trunk
from dnr_jax.rerankers import build
from dnr_jax.rerankers.mir import History, HistoryList, SetToList, affinities

KNOBS = {
    "width": 8,
    "heads": 2,
    "feed_forward": 8,
    "dropout": 0.1,
    "history_layers": 1,
    "score_entry": "none",
    "score_place": "late",
}
FULL = factories.make_full_batch()
SPEC = factories.make_spec()


def make(**knobs):
    return build("mir", factories.make_task(), **(KNOBS | knobs))


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def draw(init, *arguments):
    """Draw random parameters of a module, biases and norms included."""
    shapes = jax.eval_shape(init, jax.random.key(0), *arguments)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(0.4 * rng.normal(size=s.shape), s.dtype), shapes)


@cache
def scorer():
    """Compile a MIR of random parameters into `logits(request)`."""
    model = make()
    params = factories.random_params(model, FULL, scale=0.4)
    return factories.quick_jit(
        lambda request: types.apply(
            model, params, request, FULL.scores[:, : request.where.shape[1]]
        )
    )


@cache
def meeting():
    """Compile events -> Q -> [v, q] with random parameters: `met(events, theta, where, past)`."""
    lists, meet, v = HistoryList(4), SetToList(), normal(0, 2, 3, 6)
    events, theta = normal(1, 2, 5, 4), jnp.ones(2)
    past, where = jnp.ones((2, 5), bool), jnp.ones((2, 3), bool)
    of_list = draw(lists.init, events, past)
    of_meet = draw(meet.init, v, History(normal(1, 2, 5, 8), theta, past), where)

    def met(events, theta, where, past, v=v):
        q = lists.apply(of_list, events, past)
        return meet.apply(of_meet, v, History(q, theta, past), where)

    return factories.quick_jit(met), (events, theta, where, past)


def test_without_decay_the_affinity_is_doubled():
    raw = normal(0, 2, 5, 3)
    np.testing.assert_allclose(affinities(raw, jnp.zeros(2)), np.tanh(2 * raw), rtol=1e-6)


def test_older_events_count_for_less_and_the_latest_in_full():
    raw, theta = jnp.full((2, 4, 1), 0.3), jnp.array([0.7, 50.0])
    found = np.arctanh(np.asarray(affinities(raw, theta), np.float64))[..., 0]
    ages = np.array([3, 2, 1, 0])
    np.testing.assert_allclose(found, 0.3 * (1 + np.exp(-theta[:, None] * ages)), rtol=1e-5)
    assert np.all(np.diff(found[0]) > 0)


def test_candidates_are_a_set_and_see_one_another():
    order = np.random.default_rng(0).permutation(8)
    base = scorer()(FULL.request)
    moved = FULL.request.replace(candidates=FULL.request.candidates[:, order])
    np.testing.assert_allclose(scorer()(moved), base[:, order], rtol=1e-4, atol=1e-5)
    changed = FULL.request.replace(candidates=FULL.request.candidates.at[:, 0, 0].set(7))
    assert float(jnp.abs(scorer()(changed) - base)[:, 1:].max()) > 1e-4


def test_masked_candidates_are_as_good_as_absent():
    kept = np.array([1, 2, 4, 5, 7])
    where = jnp.ones_like(FULL.request.where).at[:, [0, 3, 6]].set(False)
    short = FULL.request.replace(where=where[:, kept], candidates=FULL.request.candidates[:, kept])
    np.testing.assert_allclose(
        scorer()(FULL.request.replace(where=where))[:, kept], scorer()(short), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("theta", [0.0, 0.5], ids=["by the LSTM", "with decay"])
def test_the_order_of_events_matters(theta):
    met, (events, ones, where, past) = meeting()
    swapped = events.at[:, [1, 3]].set(events[:, [3, 1]])
    found, other = (met(e, theta * ones, where, past) for e in (events, swapped))
    assert float(jnp.abs(found - other).max()) > 1e-3


def test_an_event_knows_those_before_and_after_it():
    lists, events, past = HistoryList(4), normal(1, 2, 5, 4), jnp.ones((2, 5), bool)
    params = draw(lists.init, events, past)
    read = factories.quick_jit(lambda e: lists.apply(params, e, past)[:, 2])
    changes = [jnp.abs(read(events.at[:, i].add(1)) - read(events))[:, 4:] for i in (0, 4)]
    # The forward half of the states, then the backward half.
    moved = np.array([[float(half.max()) > 1e-3 for half in jnp.split(c, 2, 1)] for c in changes])
    np.testing.assert_array_equal(moved, [[True, False], [False, True]])


def test_decay_changes_what_is_read():
    met, (events, ones, where, past) = meeting()
    change = met(events, 0 * ones, where, past) - met(events, ones, where, past)
    assert float(jnp.abs(change).max()) > 1e-3


def test_events_before_the_history_are_as_good_as_absent():
    met, (events, ones, where, past) = meeting()
    cut = past.at[:, :2].set(False)
    np.testing.assert_allclose(
        met(events.at[:, :2].set(9.0), ones, where, cut),
        met(events[:, 2:], ones, where, past[:, 2:]),
        rtol=1e-5,
        atol=1e-6,
    )


def test_an_empty_history_reads_no_event():
    met, (events, ones, where, past) = meeting()
    found = met(events, ones, where, jnp.zeros_like(past))
    np.testing.assert_array_equal(found[..., 6:], 0.0)
    assert float(jnp.abs(found[..., :6]).min()) > 0


def test_what_is_read_is_a_mean_of_the_real():
    met, (events, ones, where, past) = meeting()
    same = jnp.broadcast_to(jnp.arange(6.0), (2, 3, 6)).at[:, 2].set(99.0)
    found = met(events, ones, where.at[:, 2].set(False), past, same)
    np.testing.assert_allclose(
        found[..., :6], np.broadcast_to(np.arange(6.0), (2, 3, 6)), rtol=1e-5
    )


def test_an_event_without_own_columns_is_encoded_as_the_candidate_it_was():
    spec = SPEC._replace(history=("item", "category"))
    batch = factories.make_batch(seed=3)
    request = batch.request.replace(history=batch.request.history[..., :2])
    same = request.replace(
        candidates=jnp.concatenate([request.history, request.candidates[:, 5:]], axis=1)
    )
    encoder = HistoryRequestEncoder(spec, Trunk(**factories.SMALL))

    def encode(params):
        return encoder.apply(params, same, drop=identity)

    params = draw(lambda key: encoder.init(key, same, drop=identity))
    assert set(params["params"]) == {"encoder"}
    _, items, events = factories.quick_jit(encode)(params)
    np.testing.assert_allclose(items[:, :5], events, rtol=1e-5, atol=1e-6)


def test_history_columns_that_candidates_lack_are_read():
    request = FULL.request
    feedback = request.replace(history=request.history.at[..., 2].set(1))
    encoder = HistoryRequestEncoder(SPEC, Trunk(**factories.SMALL))
    params = draw(lambda key: encoder.init(key, request, drop=identity))
    encode = factories.quick_jit(lambda r: encoder.apply(params, r, drop=identity)[1:])
    (items, events), (same, other) = encode(request), encode(feedback)
    np.testing.assert_array_equal(items, same)
    changed = request.history[..., 2] != 1
    np.testing.assert_array_equal(jnp.abs(events - other).max(axis=-1) > 1e-5, changed)


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="width is 3, which is odd"):
        make(width=3, heads=1)
