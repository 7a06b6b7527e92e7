"""The algebra of the score entries: what each one can and cannot express."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dnr_jax.nn.layers import Dense
from dnr_jax.nn.score_entry import (
    ENTRIES,
    KNOTS,
    ConcatenatedDense,
    EarlyEntry,
    Prior,
    ScoredHead,
    ScoreUse,
)

RNG = np.random.default_rng(0)
H = jnp.asarray(RNG.normal(size=(2, 5, 4)), jnp.float32)
X = jnp.asarray(RNG.random((2, 5)), jnp.float32)
KERNEL = RNG.normal(size=(5, 1)).astype(np.float32)
BIAS = 0.7
PLAIN = np.asarray(H) @ KERNEL[:4, 0] + BIAS  # the linear head without scores


def linear(entry, scores):
    """Apply the linear head of `entry`, all of them with the same weights for H."""
    rows = 5 if entry == "concatenate" else 4
    params = {"output": {"kernel": jnp.asarray(KERNEL[:rows]), "bias": jnp.full(1, BIAS)}}
    head = ScoredHead(ScoreUse(entry, "late_linear"), width=3)
    return np.asarray(head.apply({"params": params}, H, scores))


def test_linear_heads_are_one_global_slope():
    x = np.asarray(X)
    np.testing.assert_allclose(linear("none", X), PLAIN, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        linear("concatenate", X), PLAIN + KERNEL[4] * x, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(linear("add", X), PLAIN + KERNEL[:4].sum() * x, rtol=1e-5, atol=1e-6)


def test_weight_fades_to_the_bias_and_ends_at_the_plain_head():
    np.testing.assert_allclose(linear("weight", jnp.zeros_like(X)), BIAS, rtol=1e-6)
    np.testing.assert_allclose(linear("weight", jnp.ones_like(X)), PLAIN, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("entry", ["concatenate", "add"])
def test_a_shift_of_all_scores_shifts_all_logits(entry):
    shift = linear(entry, X + 0.3) - linear(entry, X)
    np.testing.assert_allclose(shift, shift[0, 0], rtol=1e-4, atol=1e-5)


def test_a_concatenated_dense_is_a_dense_of_the_concatenation():
    ours, theirs = ConcatenatedDense(3), Dense(3)

    def joined(hidden, scores):
        return jnp.concatenate([hidden, scores[..., None]], axis=-1)

    params = ours.init(jax.random.key(4), H, X)
    chex.assert_trees_all_equal(params, theirs.init(jax.random.key(4), joined(H, X)))
    pull = jnp.asarray(RNG.normal(size=(2, 5, 3)), jnp.float32)

    def slopes(apply):
        return jax.value_and_grad(lambda p, h, x: (apply(p, h, x) * pull).sum(), (0, 1, 2))

    found = slopes(ours.apply)(params, H, X)
    expected = slopes(lambda p, h, x: theirs.apply(p, joined(h, x)))(params, H, X)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)
    assert "concatenate" not in str(jax.make_jaxpr(ours.apply)(params, H, X))


def shift_spread(entry):
    """Measure how unevenly the non-linear head answers a shift of all scores."""
    head = ScoredHead(ScoreUse(entry, "late"), width=16)
    params = head.init(jax.random.key(0), H, X)
    shift = head.apply(params, H, X + 0.3) - head.apply(params, H, X)
    return float(shift.max() - shift.min())


@pytest.mark.parametrize("entry", ["concatenate", "add", "weight"])
def test_the_late_head_answers_scores_candidate_by_candidate(entry):
    assert shift_spread(entry) > 1e-3


@pytest.mark.parametrize("entry", ENTRIES)
def test_early_entries_reach_the_tokens_and_not_the_head(entry):
    use = ScoreUse(entry, "early")
    tokens, _ = EarlyEntry(use).init_with_output(jax.random.key(0), H, X)
    assert tokens.shape == H.shape
    assert bool((tokens != H).any()) == use.early == (entry != "none")
    head = ScoredHead(use, width=3)
    params = head.init(jax.random.key(0), H, X)
    np.testing.assert_array_equal(head.apply(params, H, X), head.apply(params, H, 1 - X))


@pytest.mark.parametrize("place", ["late", "late_linear"])
def test_late_entries_leave_the_tokens_alone(place):
    entry = EarlyEntry(ScoreUse("add", place))
    np.testing.assert_array_equal(entry.apply({}, H, X), H)


def test_a_prior_begins_as_the_scores_and_adds_its_curve_to_a_multiple_of_the_logits():
    x = np.linspace(-0.5, 1.5, 41, dtype=np.float32).reshape(1, -1)
    logits = RNG.normal(size=x.shape).astype(np.float32)
    begun, params = Prior().init_with_output(jax.random.key(0), logits, x)
    np.testing.assert_allclose(begun, np.clip(x, 0, 1), atol=1e-6)
    values = RNG.normal(size=KNOTS).astype(np.float32)
    assert params["params"]["values"].shape == values.shape
    found = Prior().apply({"params": {"values": values, "gate": jnp.float32(0.5)}}, logits, x)
    curve = np.interp(x, np.linspace(0, 1, KNOTS), values)
    np.testing.assert_allclose(found, 0.5 * logits + curve, atol=1e-6)


def test_a_model_on_a_prior_begins_as_the_first_stage_and_learns_to_leave_it():
    """The gate alone has a gradient at first; after one step of it the backbone has one too."""
    head = ScoredHead(ScoreUse("concatenate", "prior"), width=3)
    begun, variables = head.init_with_output(jax.random.key(0), H, X)
    np.testing.assert_allclose(begun, X, atol=1e-6)
    target = jnp.asarray(RNG.random(X.shape), jnp.float32)

    def loss(params):
        return jnp.sum((head.apply({"params": params}, H, X) - target) ** 2)

    slopes = jax.grad(loss)(variables["params"])
    assert slopes["prior"]["gate"] != 0
    assert not np.any(slopes["output"]["kernel"])
    left = jax.tree.map(lambda value, slope: value - 0.01 * slope, variables["params"], slopes)
    assert np.any(jax.grad(loss)(left)["output"]["kernel"])


def test_a_prior_recovers_the_logit_that_made_the_labels():
    """By Newton's method on the cross-entropy, as the curve is linear in its values."""
    draw = np.random.default_rng(3)
    knots = np.linspace(0, 1, KNOTS)
    truth = np.sin(4 * knots)
    x = draw.random(5_000).astype(np.float32)
    z = draw.random(len(x)) < 1 / (1 + np.exp(-np.interp(x, knots, truth)))

    def curve(values):
        return Prior().apply({"params": {"values": values, "gate": 0.0}}, x, x)

    hats, values = np.asarray(jax.vmap(curve, out_axes=1)(jnp.eye(KNOTS))), np.zeros(KNOTS)
    for _ in range(10):
        p = 1 / (1 + np.exp(-hats @ values))
        values += np.linalg.solve((hats * (p * (1 - p))[:, None]).T @ hats, hats.T @ (z - p))
    assert np.abs(values - truth).max() < 0.35
