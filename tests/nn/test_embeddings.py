"""Which table a column reads, what padding contributes, and what a history may reveal."""

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax.nn.dropout import identity
from dnr_jax.nn.embeddings import FeatureEmbedding, row_offsets
from dnr_jax.nn.trunk import Trunk
from dnr_jax.nn.user_state import HistoryEncoder
from dnr_jax.types import FeatureSpec

SPEC = factories.make_spec()
REQUEST = factories.make_batch().request
MODULE = FeatureEmbedding(SPEC, width=4)
OFFSETS = row_offsets(SPEC)
PARAMS = factories.quick_jit(MODULE.init)(jax.random.key(0), REQUEST)
RUN = factories.quick_jit(MODULE.apply)


def block(table, name):
    """Cut the rows of one vocabulary out of the table of all."""
    return np.array(table)[OFFSETS[name] :][: SPEC.sizes[name]]


def table(name):
    rows = block(PARAMS["params"]["table"], name)
    rows[0] = 0
    return rows


def test_every_vocabulary_has_its_rows_in_one_table():
    taken = [OFFSETS[name] + row for name, size in SPEC.sizes.items() for row in range(size)]
    assert sorted(taken) == list(range(sum(SPEC.sizes.values())))
    assert PARAMS["params"]["table"].shape == (len(taken), 4)


def test_every_row_starts_with_length_one_on_average():
    wide = FeatureEmbedding(SPEC, width=256)
    rows = factories.quick_jit(wide.init)(jax.random.key(0), REQUEST)["params"]["table"]
    np.testing.assert_allclose(jnp.square(rows).sum(axis=1), 1.0, atol=0.4)


def test_columns_are_summed_and_padding_is_zero():
    parts = RUN(PARAMS, REQUEST)
    item, category = table("item"), table("category")
    for ids, rows in (
        (REQUEST.candidates, parts.items),
        (REQUEST.history[..., :2], parts.history_items),
    ):
        expected = item[np.asarray(ids)[..., 0]] + category[np.asarray(ids)[..., 1]]
        np.testing.assert_allclose(rows, expected, rtol=1e-6)
    assert bool((jnp.where(REQUEST.where[..., None], 0, parts.items) == 0).all())
    events = table("feedback")[np.asarray(REQUEST.history)[..., 2]]
    np.testing.assert_allclose(parts.history_events, events, rtol=1e-6)
    user = table("user")[np.asarray(REQUEST.user)[:, 0]]
    gender = table("gender")[np.asarray(REQUEST.user)[:, 1]]
    np.testing.assert_allclose(parts.user, user + gender, rtol=1e-6)
    np.testing.assert_allclose(
        parts.context, table("weekday")[np.asarray(REQUEST.context)[:, 0]], rtol=1e-6
    )


def test_padding_rows_get_no_gradient():
    total = jax.grad(lambda p: MODULE.apply(p, REQUEST).items.sum())
    gradient = factories.quick_jit(total)(PARAMS)["params"]["table"]
    for name in SPEC.sizes:
        rows = block(gradient, name)
        assert not rows[0].any()
        assert rows[1:].any() == (name in SPEC.item), "other vocabularies are not touched"


def test_a_request_without_context_or_own_event_columns():
    spec = FeatureSpec(("user",), (), ("item",), ("item",), factories.SIZES)
    request = REQUEST.replace(
        user=REQUEST.user[:, :1],
        context=REQUEST.context[:, :0],
        history=REQUEST.history[..., :1],
        candidates=REQUEST.candidates[..., :1],
    )
    module = FeatureEmbedding(spec, width=4)
    run = factories.quick_jit(module.init_with_output)
    parts, params = run(jax.random.key(0), request)
    assert params["params"]["table"].shape == (SPEC.sizes["item"] + SPEC.sizes["user"], 4)
    assert parts.context.shape == (6, 4)
    assert not parts.context.any()
    assert not parts.history_events.any()


@pytest.mark.parametrize("wrong", [-1, factories.SIZES["item"], 4000])
def test_an_id_outside_its_vocabulary_is_seen_and_reads_no_neighbour(wrong):
    broken = REQUEST.replace(candidates=REQUEST.candidates.at[0, 0, 0].set(wrong))
    bad = jnp.isnan(RUN(PARAMS, broken).items)
    assert bool(bad[0, 0].all())
    assert int(bad.sum()) == 4


def test_history_states():
    module = HistoryEncoder(Trunk(width=4, history_layers=2, heads=2, feed_forward=4))
    rng = np.random.default_rng(0)
    events = jnp.asarray(rng.normal(size=(2, 5, 4)), jnp.float32)
    where = jnp.asarray([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
    params = factories.quick_jit(lambda k: module.init(k, events, where, drop=identity))(
        jax.random.key(0)
    )
    run = factories.quick_jit(lambda p, e, w: module.apply(p, e, w, drop=identity))
    state = run(params, events, where)
    assert not state[1].any(), "an empty history is the zero state"
    garbage = jnp.where(where[..., None], events, 1e3)
    np.testing.assert_array_equal(state, run(params, garbage, where))
    swapped = run(params, events[:, jnp.array([0, 1, 3, 2, 4])], where)
    assert float(jnp.abs(swapped - state)[0].max()) > 1e-4, "the order of events matters"
    trimmed = {"params": params["params"] | {"positions": params["params"]["positions"][:3]}}
    np.testing.assert_allclose(
        run(trimmed, events[:, 2:], where[:, 2:]), state, rtol=1e-5, atol=1e-6
    )


NUMBERED = SPEC._replace(numbers=("age", "hour"), item_numbers=("price", "price is missing"))


def with_numbers(request, seed=0):
    rng = np.random.default_rng(seed)
    return request.replace(
        numbers=jnp.asarray(rng.normal(size=(len(request.user), 2)), jnp.float32),
        item_numbers=jnp.asarray(rng.normal(size=(*request.where.shape, 2)), jnp.float32),
    )


def test_numbers_add_a_linear_map_and_change_nothing_else():
    request, module = with_numbers(REQUEST), FeatureEmbedding(NUMBERED, width=4)
    params = factories.quick_jit(module.init)(jax.random.key(0), request)["params"]
    np.testing.assert_array_equal(params["table"], PARAMS["params"]["table"])
    parts, plain = module.apply({"params": params}, request), RUN(PARAMS, REQUEST)
    items = plain.items + request.item_numbers @ params["item_numbers"]
    np.testing.assert_allclose(parts.items, items, atol=1e-6)
    np.testing.assert_allclose(
        parts.user, plain.user + request.numbers @ params["numbers"], atol=1e-6
    )
    for name in ("context", "history_items", "history_events"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(plain, name))


def test_a_request_without_the_numbers_of_the_model_is_refused():
    with pytest.raises(ValueError, match="no numbers, but the model needs 2 columns of them"):
        FeatureEmbedding(NUMBERED, width=4).init(jax.random.key(0), REQUEST)
