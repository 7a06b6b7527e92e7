"""Which table a column reads, what padding contributes, and what a history may reveal."""

import factories
import jax
import jax.numpy as jnp
import numpy as np

from dnr_jax.nn.embeddings import FeatureEmbedding
from dnr_jax.nn.user_state import HistoryEncoder
from dnr_jax.types import FeatureSpec

SPEC = factories.make_spec()
REQUEST = factories.make_batch().request
MODULE = FeatureEmbedding(SPEC, width=4)
PARAMS = factories.quick_jit(MODULE.init)(jax.random.key(0), REQUEST)
RUN = factories.quick_jit(MODULE.apply)


def table(name):
    rows = np.array(PARAMS["params"][f"table_{name}"])
    rows[0] = 0
    return rows


def test_there_is_one_table_per_vocabulary():
    shapes = {name: leaf.shape for name, leaf in PARAMS["params"].items()}
    assert shapes == {f"table_{name}": (size, 4) for name, size in factories.SIZES.items()}


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
    gradient = factories.quick_jit(total)(PARAMS)["params"]["table_item"]
    assert bool((gradient[0] == 0).all())
    assert bool((gradient[1:] != 0).any())


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
    assert sorted(params["params"]) == ["table_item", "table_user"]
    assert parts.context.shape == (6, 4)
    assert not parts.context.any()
    assert not parts.history_events.any()


def test_an_id_outside_its_vocabulary_is_seen():
    broken = REQUEST.replace(candidates=REQUEST.candidates.at[0, 0, 0].set(4000))
    assert bool(jnp.isnan(RUN(PARAMS, broken).items[0, 0]).all())


def test_history_states():
    module = HistoryEncoder(layers=2, heads=2, feed_forward=4, dropout=0.1)
    rng = np.random.default_rng(0)
    events = jnp.asarray(rng.normal(size=(2, 5, 4)), jnp.float32)
    where = jnp.asarray([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
    params = factories.quick_jit(lambda k: module.init(k, events, where, train=False))(
        jax.random.key(0)
    )
    run = factories.quick_jit(lambda p, e, w: module.apply(p, e, w, train=False))
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
