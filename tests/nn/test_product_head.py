"""The inner-product head: what it is without scores, and what each entry and place adds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax.nn.score_entry import ENTRIES, PLACES, ProductHead, ScoreUse

RNG = np.random.default_rng(0)
Q = RNG.normal(size=(2, 4)).astype(np.float32)
E = RNG.normal(size=(2, 5, 4)).astype(np.float32)
X = RNG.random((2, 5)).astype(np.float32)
PLAIN = np.einsum("bd,bnd->bn", Q, E)


def applied(entry, place, scores=X):
    """Apply a head of random parameters; return its logits and those parameters."""
    head = ProductHead(ScoreUse(entry, place), width=3)
    shapes = jax.eval_shape(head.init, jax.random.key(0), Q, E, X)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype), shapes)
    return np.asarray(head.apply(params, Q, E, scores)), params.get("params", {})


def scored(entry, params, scores):
    """Compute the linear or two-layer head of q * e and x with NumPy."""
    hidden, x = Q[:, None] * E, scores[..., None]
    hidden = {
        "concatenate": np.concatenate([hidden, x], axis=-1),
        "add": hidden + x,
        "weight": hidden * x,
        "none": hidden,
    }[entry]
    if "hidden" in params:
        hidden = np.maximum(hidden @ params["hidden"]["kernel"] + params["hidden"]["bias"], 0)
    return (hidden @ params["output"]["kernel"] + params["output"]["bias"])[..., 0]


@pytest.mark.parametrize("place", PLACES)
def test_without_scores_it_is_the_inner_product_and_learns_nothing(place):
    logits, params = applied("none", place)
    np.testing.assert_allclose(logits, PLAIN, rtol=1e-5, atol=1e-6)
    assert params == {}


@pytest.mark.parametrize("place", ["late", "late_linear"])
@pytest.mark.parametrize("entry", ["concatenate", "add", "weight"])
def test_a_late_head_is_added_to_the_product(entry, place):
    logits, params = applied(entry, place)
    own = params["ScoredHead_0"]
    assert ("hidden" in own) == (place == "late")
    np.testing.assert_allclose(logits, PLAIN + scored(entry, own, X), rtol=1e-5, atol=1e-5)


def test_a_prior_is_added_to_a_multiple_of_the_product():
    logits, params = applied("concatenate", "prior")
    gate, values = params["prior"]["gate"], params["prior"]["values"]
    curve = np.interp(X, np.linspace(0, 1, 11), values)
    np.testing.assert_allclose(logits, gate * PLAIN + curve, rtol=1e-5, atol=1e-5)


def test_an_early_score_changes_the_item_before_the_product():
    faded, params = applied("weight", "early")
    np.testing.assert_allclose(faded, PLAIN * X, rtol=1e-5, atol=1e-6)
    assert params == {}
    added, params = applied("add", "early")
    direction = np.asarray(params["EarlyEntry_0"]["Dense_0"]["kernel"])[0]
    np.testing.assert_allclose(added, PLAIN + X * (Q @ direction)[:, None], rtol=1e-5, atol=1e-5)
    joined, params = applied("concatenate", "early")
    mix = params["EarlyEntry_0"]["Dense_0"]
    items = np.concatenate([E, X[..., None]], axis=-1) @ mix["kernel"] + mix["bias"]
    expected = np.einsum("bd,bnd->bn", Q, items)
    np.testing.assert_allclose(joined, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_score_moves_the_logit_of_its_own_candidate_alone(entry, place):
    moved = X.copy()
    moved[:, 2] += 0.5
    change = applied(entry, place, moved)[0] - applied(entry, place)[0]
    np.testing.assert_allclose(np.delete(change, 2, axis=1), 0, atol=1e-6)
    assert bool((np.abs(change[:, 2]) > 1e-3).all()) == (entry != "none")
