"""Steps of the retrievers on the batch's rows alone: against dense steps and a slow loop."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factories import quick_jit

from dnr_jax.nn.dropout import identity
from dnr_jax.nn.tables import names
from dnr_jax.retrievers import descent, epochs
from dnr_jax.retrievers.descent import NETWORKS, check_memory, descend, make_optimizer
from dnr_jax.retrievers.epochs import Step
from dnr_jax.retrievers.retriever import Queries
from dnr_jax.retrievers.tables import Features

# The package's names are the functions of these modules.
mf, two_tower = (
    importlib.import_module(f"dnr_jax.retrievers.{name}")
    for name in ("matrix_factorization", "two_tower")
)
USERS, ITEMS, WIDTH, HIDDEN, LISTS, STEPS = 14, 18, 4, 6, 40, 4
# Small: Adam blows the rounding of a gradient near 0 up to a whole step.
RATES = {"learning_rate": 0.002, "table_learning_rate": 0.02}
SPARSE = ("lazy_adam", "rowwise_adagrad")


class Case(NamedTuple):
    """A retriever's step: parameters, its loss and rows of a batch, and which rows these are."""

    kind: Any
    params: Any
    loss: Any
    rows_read: Any
    ids: Any


def normal(draw, *shape):
    return jnp.asarray(draw.normal(scale=0.3, size=shape), jnp.float32)


def factorisation(draw):
    params = {"users": normal(draw, USERS, WIDTH), "items": normal(draw, ITEMS, WIDTH)}

    def ids(batch):
        items = np.append(batch.item, batch.other)
        return {("users",): batch.user, ("items",): items, ("bias",): items}

    params |= {"bias": normal(draw, ITEMS)}
    return Case(mf.MatrixFactorizationSettings, params, mf.objective, mf.rows_read, ids)


def triples(draw, size):
    user, item, other = draw.integers(2, (USERS, ITEMS, ITEMS), (size, 3)).T
    return mf.Triples(user, item, other, np.arange(size) != 1)


def towers(draw):
    data, settings = world(draw), two_tower.TwoTowerSettings(width=WIDTH, hidden=HIDDEN)
    known, queries = data.known, data.queries
    network = two_tower._tower(settings).init(
        jax.random.key(0), jnp.zeros((1, 2 * WIDTH)), drop=identity
    )
    sides = {
        side: [normal(draw, int(column.max()) + 1, WIDTH) for column in ids.T]
        for side, ids in (("users", known.users), ("items", known.items))
    }
    more = {"feedback": normal(draw, 4, WIDTH), "bias": normal(draw, ITEMS)}
    params = {"tables": sides | more, "tower": network["params"]}

    def ids(step):
        request, item = data.request[step.rows], data.item[step.rows]
        users = known.users[queries.user[request]]
        items = known.items[np.append(queries.history[request], item)]
        found = {("tables", "users", n): np.append(users[:, n], 0) for n in range(2)}
        found |= {("tables", "items", n): np.append(items[:, n], 0) for n in range(2)}
        return found | {("tables", "bias"): item}

    held = jax.tree.map(jnp.asarray, data)
    return Case(
        partial(two_tower.TwoTowerSettings, dropout=0.0, hidden=HIDDEN),
        params,
        lambda settings, params, step: two_tower.objective(settings, params, held, step),
        lambda params, step: two_tower.rows_read(params, held, step),
        ids,
    )


def world(draw):
    """Draw lists of which every other one has a history, and features in two columns a side."""
    user, item = draw.integers(2, USERS, LISTS), draw.integers(2, ITEMS, 3 * LISTS)
    history = draw.integers(2, ITEMS, (LISTS, 3)) * (np.arange(LISTS) % 2)[:, None]
    queries = Queries(user, history, (history > 0) * 3)
    users, items = (
        np.stack([np.arange(n), np.arange(n) % kinds], axis=1)
        for n, kinds in ((USERS, 5), (ITEMS, 6))
    )
    log_share = np.log(draw.dirichlet(np.ones(ITEMS))).astype(np.float32)
    request = np.repeat(np.arange(LISTS), 3)
    return two_tower.Examples(request, item, log_share, queries, Features(users, items))


def examples(draw, size):
    rows = draw.integers(0, 3 * LISTS, size).astype(np.int32)
    real = (np.arange(size) != 1).astype(np.float32)
    return Step(rows, real, jax.random.key(0), np.int32(0))


CASES = {"matrix_factorization": (factorisation, triples), "two_tower": (towers, examples)}


def trained(case, updates, batches, *, whole=False):
    settings = case.kind(width=WIDTH, tables=updates, **RATES)
    optimizer = make_optimizer(settings)

    @quick_jit
    def step(state, batch):
        rows = {} if whole else case.rows_read(state[0], batch)
        return descend(optimizer, partial(_loss, case, settings, batch), state, rows)

    state = (case.params, optimizer.init(case.params))
    for batch in batches:
        state, _ = step(state, batch)
    return state


def _loss(case, settings, batch, params):
    return case.loss(settings, params, batch)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    make, batch = CASES[request.param]
    draw = np.random.default_rng(0)
    return make(draw), partial(batch, draw)


def test_a_batch_that_reads_every_row_gives_the_dense_step(case):
    """Row-wise Adagrad's dense step is that on whole tables."""
    case, draw = case
    updates = "lazy_adam" if case.kind is mf.MatrixFactorizationSettings else "rowwise_adagrad"
    batch = draw(400)
    read = case.ids(batch).values()
    assert all(len(np.unique(ids[ids > 1])) == ids.max() - 1 for ids in read)
    sparse, dense = (trained(case, updates, [batch] * 3, whole=whole) for whole in (False, True))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), sparse, dense)


@pytest.mark.parametrize("updates", SPARSE)
def test_rows_move_as_in_a_slow_loop_and_others_not_at_all(case, updates):
    case, draw = case
    batches = [draw(3) for _ in range(STEPS)]
    found, _ = trained(case, updates, batches)
    expected, idle = slow(case, updates, batches)
    assert idle > 8
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), found, expected)


def slow(case, updates, batches):
    """Update the rows that a batch reads in float64; count those that none reads.

    The gradient is that of whole tables, so that it knows nothing of gathered rows.
    """
    settings = case.kind(width=WIDTH, **RATES)
    slopes = quick_jit(lambda p, b: jax.grad(partial(_loss, case, settings, b))(p))
    leaves, tree = jax.tree_util.tree_flatten_with_path(case.params)
    paths, values = [p for p, _ in leaves], [np.asarray(v, np.float64) for _, v in leaves]
    moments = [(np.zeros_like(v), np.zeros_like(v)) for v in values]
    moved = [np.zeros(len(v), bool) for v in values]
    for t, batch in enumerate(batches, 1):
        now = jax.tree.unflatten(tree, [jnp.asarray(v, jnp.float32) for v in values])
        gradients = map(np.asarray, jax.tree.leaves(slopes(now, batch)))
        for n, gradient in enumerate(gradients):
            rows = np.unique(case.ids(batch).get(names(paths[n]), np.arange(len(values[n]))))
            moved[n][rows] = True
            if updates == "rowwise_adagrad" and names(paths[n])[0] not in NETWORKS:
                adagrad(values[n], moments[n][0], rows, gradient)
            else:
                adam(values[n], moments[n], rows, gradient, t)
    tree_of_values = jax.tree.unflatten(tree, values)
    return tree_of_values, sum(int((~mask).sum()) for mask in moved)


def adam(table, moments, rows, gradient, t):
    m, v = moments
    for r in rows:
        m[r], v[r] = 0.9 * m[r] + 0.1 * gradient[r], 0.999 * v[r] + 0.001 * gradient[r] ** 2
        mean, root = m[r] / (1 - 0.9**t), np.sqrt(v[r] / (1 - 0.999**t))
        table[r] -= RATES["learning_rate"] * mean / (root + 1e-8)


def adagrad(table, squares, rows, gradient):
    for r in rows:
        squares[r] += np.mean(np.square(gradient[r]))
        table[r] -= RATES["table_learning_rate"] * gradient[r] / (np.sqrt(squares[r]) + 1e-8)


@pytest.mark.parametrize(("updates", "copies"), [("lazy_adam", 3), ("rowwise_adagrad", 1.25)])
def test_an_epoch_of_matrix_factorisation_updates_a_million_rows_in_place(updates, copies):
    settings = mf.MatrixFactorizationSettings(width=WIDTH, tables=updates)
    params = shapes(users=(9, WIDTH), items=(10**6, WIDTH), bias=(10**6,))
    ids = shapes(user=(24,), item=(24,), item_count=(), dtype=jnp.int32)
    met = mf.Met(**shapes(items=(50,), start=(10,), rounds=(), dtype=jnp.int32))
    known = mf.Examples(met=met, **ids)
    state = (params, jax.eval_shape(make_optimizer(settings).init, params))
    key = jax.eval_shape(jax.random.key, 0)
    found = mf._epoch(settings, 3, 8).lower(key, state, known).compile().memory_analysis()
    bias = 1e6 * 4 * (3 if updates == "lazy_adam" else 2)
    assert found.alias_size_in_bytes == pytest.approx(1e6 * WIDTH * 4 * copies + bias, rel=0.01)
    assert found.temp_size_in_bytes < 0.01 * 1e6 * WIDTH * 4


def test_a_step_of_the_two_towers_updates_a_million_rows_in_place():
    large, draw = 10**6, np.random.default_rng(0)
    case = towers(draw)
    settings, small = case.kind(width=WIDTH, tables="rowwise_adagrad"), world(draw)
    grown = {"items": [(large, WIDTH), (6, WIDTH)], "bias": (large,)}
    params = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), case.params)
    for name, shape in grown.items():
        params["tables"][name] = jax.tree.map(
            lambda s: jax.ShapeDtypeStruct(s, jnp.float32), shape, is_leaf=_is_shape
        )
    known = small.known._replace(items=jax.ShapeDtypeStruct((large, 2), jnp.int32))
    log_share = jax.ShapeDtypeStruct((large,), jnp.float32)
    data = small._replace(known=known, log_share=log_share)
    state = (params, jax.eval_shape(make_optimizer(settings).init, params))
    update = epochs._update(two_tower.objective, settings, two_tower.rows_read)
    found = update.lower(state, data, examples(draw, 8)).compile().memory_analysis()
    assert found.alias_size_in_bytes == pytest.approx(1e6 * 4 * (WIDTH + 1 + 2), rel=0.01)
    assert found.temp_size_in_bytes < 0.01 * 1e6 * WIDTH * 4


def _is_shape(value):
    return isinstance(value, tuple)


def shapes(dtype=jnp.float32, **named):
    return {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in named.items()}


@pytest.mark.parametrize(
    ("updates", "gib", "cures"),
    [
        ("dense", 5, r"retrievers\.here\.tables=rowwise_adagrad, or a smaller"),
        ("lazy_adam", 5, r"retrievers\.here\.tables=rowwise_adagrad, or a smaller"),
        ("rowwise_adagrad", 3.25, r"a larger config\.data\.core, or a smaller"),
    ],
)
def test_tables_that_do_not_fit_are_refused(monkeypatch, updates, gib, cures):
    settings = two_tower.TwoTowerSettings(width=WIDTH, tables=updates)
    params = shapes(items=(2**26, WIDTH))  # one GiB
    monkeypatch.setattr(descent, "of_device", lambda: int(gib * 2**30))
    check_memory("here", settings, params)
    monkeypatch.setattr(descent, "of_device", lambda: int(gib * 2**30) - 1)
    with pytest.raises(ValueError, match=rf"takes at least {gib:.2f} GiB; set (config\.)?{cures}"):
        check_memory("here", settings, params)
