"""Only the batch's rows move, by the numbers of a slow loop; as dense where every row is read."""

from dataclasses import replace
from functools import cache, partial

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dnr_jax import divergences, noise
from dnr_jax.nn import tables
from dnr_jax.nn.adapter import wrap
from dnr_jax.nn.embeddings import FeatureEmbedding, row_offsets, rows_read, table_rows
from dnr_jax.objectives import ObjectiveSettings
from dnr_jax.training.optimizers import (
    GENERATOR,
    RERANKER,
    OptimizerSettings,
    two_player_optimizer,
)
from dnr_jax.training.sparse import batch_rows, make_sparse_step
from dnr_jax.training.step import Game, init_state
from dnr_jax.types import FeatureSpec, Task

# A large eps: Adam would blow the rounding of a gradient that should be 0 up to a whole step.
KNOBS = {"learning_rate": 0.05, "clip": 0.05, "eps": 1e-2, "decay_every": 2, "decay_factor": 0.5}
PLAYERS = ("reranker", "generator")
SPEC = factories.make_spec()


class Sums(nn.Module):
    """A candidate's logit is the sum of its embedding: the gradient is known in closed form."""

    spec: FeatureSpec

    def setup(self):
        self.embedding = FeatureEmbedding(self.spec, 4)

    def encode(self, request, *, drop):
        return self.embedding(request).items.sum(axis=-1)

    def decode(self, logits, scores, where, *, drop):
        return logits


def optimizer(updates):
    adam = OptimizerSettings(tables=updates, table_learning_rate=0.1, **KNOBS)
    return two_player_optimizer(adam, adam, steps_per_epoch=(1, 1))


def with_items(items):
    return SPEC._replace(sizes=factories.SIZES | {"item": items})


@cache
def play(items=None, *, learned=True):
    spec = SPEC if items is None else with_items(items)
    base, sizes = noise.build_draw("gaussian"), {"width": 4, "embedding_width": 4}
    generator = noise.build_generator("learned_direct", Task(spec), base, **sizes)
    parts = (generator, divergences.build("density_exact")) if learned else (None, None)
    return Game(wrap(Sums(spec), dropout=0.0), *parts, None, ObjectiveSettings())


def first(updates, batch, *, learned=True, items=None):
    game = play(items, learned=learned)
    noise_, key = game.noise if learned else None, jax.random.key(0)
    return init_state(key, game.reranker, noise_, optimizer(updates), batch)


def trained(updates, batches, turns, *, players, learned=True, part=None):
    game, state = play(learned=learned), first(updates, batches[0], learned=learned)
    known = {"spec": SPEC, "players": players, "plays": learned, "part": part}
    step = factories.quick_jit(make_sparse_step(game, optimizer(updates), **known))
    for batch, turn in zip(batches, turns, strict=True):
        state, terms = step(state, batch, turn)
    return state, terms


def covering():
    """Draw a batch with every id of every column, that of padding included."""
    batch = factories.make_batch(B=96)
    request = batch.request
    user, context = (ids.at[0].set(0) for ids in (request.user, request.context))
    return replace(batch, request=replace(request, user=user, context=context))


@pytest.mark.parametrize(("updates", "part"), [("lazy_adam", 16), ("rowwise_adagrad", None)])
def test_a_batch_that_reads_every_row_gives_the_dense_step(updates, part):
    """Of both players: of row-wise Adagrad the dense step is that on whole tables."""
    batch = covering()
    assert len(np.unique(rows_read(SPEC, batch.request))) == table_rows(SPEC)
    turns = (RERANKER, GENERATOR, RERANKER)
    sparse, terms = trained(updates, [batch] * 3, turns, players=PLAYERS, part=part)
    dense, same = trained(updates, [batch] * 3, turns, players=(), part=part)
    for mine, other in ((sparse.params, dense.params), (sparse.opt_state, dense.opt_state)):
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), mine, other)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), terms, same)


def test_a_table_of_positions_is_no_table_of_ids():
    positions = jnp.zeros((table_rows(SPEC), 4))
    params = {
        "reranker": {"list_positions": {"table": positions}, "embedding": {"table": positions}}
    }
    found = batch_rows(params, SPEC, covering().request, players=PLAYERS, plays=True)
    assert list(found) == [("reranker", "embedding", "table")]


def slopes(table, batch):
    """Write the gradient of the mean cross-entropy of `Sums`, entry by entry."""
    offsets, gradient = row_offsets(SPEC), np.zeros_like(table)
    ids, total = np.asarray(batch.request.candidates), float(batch.weights.sum())
    for place in np.argwhere(np.asarray(batch.weights) > 0):
        one = tuple(place)
        rows = [offsets[n] + i for n, i in zip(SPEC.item, ids[one], strict=True) if i > 0]
        p = 1 / (1 + np.exp(-sum(table[row].sum() for row in rows)))
        for row in rows:
            gradient[row] += (p - float(batch.labels[one])) / total
    return gradient


def slow(updates, table, batches):
    """Update the rows that a batch reads, and no other, in float64."""
    m, v, squares = np.zeros_like(table), np.zeros_like(table), np.zeros(len(table))
    for t, batch in enumerate(batches):
        rate = 0.5 ** (t // 2)
        gradient = slopes(table, batch)
        gradient *= min(1, KNOBS["clip"] / np.sqrt((gradient**2).sum()))
        for row in np.unique(rows_read(SPEC, batch.request)):
            g = gradient[row] + 1e-3 * table[row]
            if updates == "lazy_adam":
                m[row], v[row] = 0.9 * m[row] + 0.1 * g, 0.98 * v[row] + 0.02 * g**2
                mean, root = m[row] / (1 - 0.9 ** (t + 1)), v[row] / (1 - 0.98 ** (t + 1))
                table[row] -= rate * 0.05 * mean / (np.sqrt(root) + 1e-2)
            else:
                squares[row] += (g**2).mean()
                table[row] -= rate * 0.1 * g / (np.sqrt(squares[row]) + 1e-2)
    return table


@pytest.mark.parametrize("updates", ["lazy_adam", "rowwise_adagrad"])
def test_rows_move_as_in_a_slow_loop_and_others_not_at_all(updates):
    batches = [factories.make_batch(seed=seed, B=2, N=3, T=2) for seed in range(4)]
    before = first(updates, batches[0], learned=False).params["reranker"]["embedding"]["table"]
    turns = [RERANKER] * 4
    after, _ = trained(updates, batches, turns, players=("reranker",), learned=False)
    table = np.asarray(after.params["reranker"]["embedding"]["table"])
    expected = slow(updates, np.asarray(before, np.float64), batches)
    np.testing.assert_allclose(table, expected, atol=1e-6)
    read = np.unique(np.concatenate([rows_read(SPEC, b.request) for b in batches]))
    idle = np.setdiff1d(np.arange(len(table)), read)
    assert len(idle) > 10
    np.testing.assert_array_equal(table[idle], np.asarray(before)[idle])


def test_distinct_rows_are_sorted_once_each_and_the_rest_names_no_row():
    found = np.asarray(tables.distinct(jnp.asarray([5, 2, 5, 9, 2, -3]), rows=8))
    assert found.tolist() == [0, 2, 5, 7, *found[4:]]
    assert (found[4:] >= 8).all()
    assert len(set(found.tolist())) == 6
    assert tables.distinct(jnp.asarray([1, 1, 0, 0]), rows=2).tolist() == [0, 1]


def test_the_padding_of_every_column_is_at_hand_in_a_batch_without_any():
    """Models read it where they mask: a row that is not at hand would give NaN gradients there."""
    batch = factories.make_batch()
    request = jax.tree.map(lambda a: jnp.ones_like(a), batch.request)
    assert set(row_offsets(SPEC).values()) <= set(np.asarray(rows_read(SPEC, request)).tolist())


def test_a_row_that_was_not_gathered_is_nan_and_not_a_neighbour():
    rows = tables.Rows(jnp.asarray([1, 4, 9]), jnp.ones((3, 2)))
    found = tables.read(rows, jnp.asarray([4, 3, 9, 10]), mode="clip")
    assert np.isnan(found).all(axis=1).tolist() == [False, True, False, True]


@pytest.mark.parametrize(("updates", "copies"), [("lazy_adam", 3), ("rowwise_adagrad", 1.25)])
def test_a_million_rows_are_held_once_and_updated_in_place(updates, copies):
    """Both players, tables of 10^6 items: from shapes alone, nothing of that size is allocated."""
    items = 10**6
    batch = factories.make_batch(B=4)
    state = jax.eval_shape(partial(first, updates, batch, items=items))
    known = {"spec": with_items(items), "players": PLAYERS, "plays": True}
    step = jax.jit(make_sparse_step(play(items), optimizer(updates), **known), donate_argnums=0)
    turn = jax.ShapeDtypeStruct((), jnp.int32)
    found = step.lower(state, batch, turn).compile().memory_analysis()
    tables_and_moments = 2 * items * 4 * 4 * copies
    assert found.alias_size_in_bytes == pytest.approx(tables_and_moments, rel=0.01)
    assert found.temp_size_in_bytes < 0.01 * items * 4 * 4
