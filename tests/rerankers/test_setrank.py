"""SetRank's own properties: sets, induced points, list lengths, the ordinal variant."""

from functools import cache, partial

import factories
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dnr_jax import types
from dnr_jax.nn.dropout import identity
from dnr_jax.rerankers import build
from dnr_jax.rerankers.setrank import InducedTransformer

KNOBS = {
    "width": 8,
    "layers": 2,
    "heads": 2,
    "feed_forward": 8,
    "dropout": 0.1,
    "history_layers": 1,
    "attention": "imsab",
    "inducing": 4,
    "positions": "none",
    "score_entry": "none",
    "score_place": "late",
}
FULL = factories.make_full_batch()


def make(**knobs):
    return build("setrank", factories.make_task(), **(KNOBS | knobs))


@cache
def parameters(**knobs):
    return factories.random_params(make(**knobs), FULL)


@cache
def scorer(**knobs):
    """Compile a SetRank into `logits(params, request, scores)`."""
    model = make(**knobs)
    return factories.quick_jit(
        lambda params, request, scores: types.apply(model, params, request, scores)
    )


def swap(array, i, j):
    return array.at[:, [i, j]].set(array[:, [j, i]])


@pytest.mark.parametrize("attention", ["msab", "imsab"])
def test_candidates_are_a_set_and_see_one_another(attention):
    params, score = parameters(attention=attention), scorer(attention=attention)
    base = score(params, FULL.request, FULL.scores)
    moved = FULL.request.replace(candidates=swap(FULL.request.candidates, 0, 5))
    np.testing.assert_allclose(
        swap(score(params, moved, FULL.scores), 0, 5), base, rtol=1e-4, atol=1e-5
    )
    changed = FULL.request.replace(candidates=FULL.request.candidates.at[:, 0, 1].set(5))
    others = jnp.abs(score(params, changed, FULL.scores) - base)[:, 1:]
    assert float(others.max()) > 1e-4


@pytest.mark.parametrize("attention", ["msab", "imsab"])
def test_masked_candidates_are_as_good_as_absent(attention):
    params, score = parameters(attention=attention), scorer(attention=attention)
    kept = np.array([1, 2, 4, 5, 7])
    where = jnp.ones_like(FULL.request.where).at[:, [0, 3, 6]].set(False)
    short = FULL.request.replace(where=where[:, kept], candidates=FULL.request.candidates[:, kept])
    np.testing.assert_allclose(
        score(params, FULL.request.replace(where=where), FULL.scores)[:, kept],
        score(params, short, FULL.scores[:, kept]),
        rtol=1e-4,
        atol=1e-5,
    )


def test_the_order_of_the_inducing_points_does_not_matter_but_their_values_do():
    params, score = parameters(), scorer()
    base = score(params, FULL.request, FULL.scores)

    def with_points(change):
        encoder = params["list_encoder"]
        points = {name: change(encoder[name]) for name in ("points_0", "points_1")}
        return score(params | {"list_encoder": encoder | points}, FULL.request, FULL.scores)

    np.testing.assert_allclose(with_points(lambda p: p[::-1]), base, rtol=1e-4, atol=1e-5)
    other = with_points(lambda p: p.at[0].mul(-1))
    assert float(jnp.abs(other - base).max()) > 1e-4


def test_inducing_points_start_at_a_tenth():
    encoder = InducedTransformer(layers=2, heads=2, feed_forward=8, inducing=500)
    start = factories.quick_jit(partial(encoder.init, drop=identity))
    points = start(jax.random.key(0), jnp.ones((1, 2, 8)), jnp.ones((1, 2), bool))["params"]
    assert not np.allclose(points["points_0"], points["points_1"])
    np.testing.assert_allclose(np.std(points["points_0"]), 0.1, rtol=0.05)


def test_it_learns_on_short_lists_and_ranks_long_ones():
    model = make(layers=1)
    short, long = factories.make_batch(B=4, N=10), factories.make_batch(seed=1, B=4, N=38)
    optimizer = optax.adam(1e-2)
    start = factories.quick_jit(model.init)(jax.random.key(0), short.request, short.scores)

    def step(state, key):
        params, moments = state
        loss, slope = jax.value_and_grad(model.stages[0].loss)(params, short, key=key, train=True)
        updates, moments = optimizer.update(slope, moments)
        return (optax.apply_updates(params, updates), moments), loss

    run = factories.quick_jit(lambda state, keys: jax.lax.scan(step, state, keys))
    keys = jax.random.split(jax.random.key(1), 40)
    (params, _), losses = run((start, optimizer.init(start)), keys)
    assert float(losses[-5:].mean()) < 0.7 * float(losses[0])
    logits = scorer(layers=1)(params, long.request, long.scores)
    assert logits.shape == (4, 38)
    assert bool(jnp.isfinite(logits).all())
    assert all(len(np.unique(row)) > 2 for row in np.asarray(logits))


def test_the_ordinal_variant_reads_the_order_of_the_scores_and_nothing_else():
    params, score = parameters(positions="rank"), scorer(positions="rank")
    base = score(params, FULL.request, FULL.scores)
    np.testing.assert_allclose(
        base, score(params, FULL.request, FULL.scores**2), rtol=1e-5, atol=1e-6
    )
    assert float(jnp.abs(score(params, FULL.request, FULL.scores[:, ::-1]) - base).max()) > 1e-3
    plain = scorer()
    np.testing.assert_array_equal(
        plain(parameters(), FULL.request, FULL.scores),
        plain(parameters(), FULL.request, FULL.scores[:, ::-1]),
    )


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"inducing": 0}, "inducing is 0: it must be 1 or more"),
        ({"attention": "isab"}, "attention is 'isab': it must be one of msab, imsab"),
        ({"positions": "index"}, "positions is 'index': it must be one of none, rank"),
    ],
)
def test_bad_knobs_are_named(knobs, message):
    with pytest.raises(ValueError, match=message):
        make(**knobs)
