"""PRM's own properties: what depends on positions, causality, scores; where the encoder stands."""

from functools import cache

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax import types
from dnr_jax.rerankers import build

KNOBS = {
    "width": 8,
    "layers": 2,
    "heads": 2,
    "feed_forward": 8,
    "dropout": 0.1,
    "history_layers": 1,
    "positions": "none",
    "causal": False,
    "score_entry": "none",
    "score_place": "late",
}
BATCH = factories.make_batch(seed=3)
FULL = BATCH.replace(
    request=BATCH.request.replace(where=jnp.ones_like(BATCH.request.where)),
    scores=jnp.asarray(np.random.default_rng(0).random(BATCH.scores.shape), jnp.float32),
)


def make(**knobs):
    return build("prm", factories.make_task(), **(KNOBS | knobs))


@cache
def scorer(**knobs):
    """Compile a PRM of random parameters into `logits(request, scores)`."""
    model = make(**knobs)
    params = factories.random_params(model, FULL)
    return factories.quick_jit(lambda request, scores: types.apply(model, params, request, scores))


def test_masked_candidates_are_as_good_as_absent():
    logits = scorer()
    masked = FULL.request.replace(where=FULL.request.where.at[:, 5:].set(False))
    short = FULL.request.replace(
        where=FULL.request.where[:, :5], candidates=FULL.request.candidates[:, :5]
    )
    np.testing.assert_allclose(
        logits(masked, FULL.scores)[:, :5], logits(short, FULL.scores[:, :5]), rtol=1e-4, atol=1e-5
    )


def test_rank_positions_read_the_order_of_the_scores_and_nothing_else():
    logits = scorer(positions="rank")
    base = logits(FULL.request, FULL.scores)
    np.testing.assert_allclose(base, logits(FULL.request, FULL.scores**2), rtol=1e-5, atol=1e-6)
    moved = logits(FULL.request, FULL.scores[:, ::-1])
    assert float(jnp.abs(moved - base).max()) > 1e-3


def test_causal_candidates_see_earlier_ones_only():
    logits = scorer(positions="index", causal=True)
    changed = FULL.request.replace(candidates=FULL.request.candidates.at[:, 4:, 0].set(7))
    before, after = (logits(request, FULL.scores) for request in (FULL.request, changed))
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert bool((before[:, 4:] != after[:, 4:]).any())


def test_without_a_score_entry_scores_change_nothing():
    logits = scorer()
    np.testing.assert_array_equal(
        logits(FULL.request, FULL.scores), logits(FULL.request, 1 - FULL.scores)
    )


def products_in_decode(**knobs):
    model = make(**knobs)
    params = jax.eval_shape(model.init, jax.random.key(0), FULL.request, FULL.scores)
    memory = jax.eval_shape(model.encode, params, FULL.request)
    return str(jax.make_jaxpr(model.decode)(params, memory, FULL.scores)).count("dot_general[")


@pytest.mark.parametrize("entry", ["none", "concatenate", "add", "weight"])
def test_a_late_decode_is_the_head_alone(entry):
    of_scores = int(entry == "concatenate")  # [h, x] W is two products
    assert products_in_decode(score_entry=entry, score_place="late_linear") == 1 + of_scores
    assert products_in_decode(score_entry=entry, score_place="late") == 2 + of_scores


def test_an_early_decode_holds_the_candidate_encoder():
    assert products_in_decode(score_entry="add", score_place="early") > 4
    assert products_in_decode(positions="rank") > 4
    assert products_in_decode(score_entry="none", score_place="early") == 1


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"positions": "ranks"}, "positions is 'ranks': it must be one of none, rank, index"),
        ({"causal": 1}, "causal is 1: it must be of type bool"),
    ],
)
def test_bad_knobs_are_named(knobs, message):
    with pytest.raises(ValueError, match=message):
        make(**knobs)
