"""The losses, and both decompositions of -log p(z) on a world small enough to enumerate."""

import itertools
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factories import quick_jit
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from dnr_jax import divergences, objectives
from dnr_jax.nn import losses
from dnr_jax.objectives import LOSSES, ObjectiveSettings

N = 3  # candidates
LEVELS = (0.1, 0.5, 0.8)  # score levels
X = np.array(list(itertools.product(LEVELS, repeat=N)))  # [27, N]
Z = np.array(list(itertools.product((0.0, 1.0), repeat=N)))  # [8, N]


def random_law(random, *shape):
    """Positive probabilities, all multiples of 2^-20: exact in float32, so weights lose nothing."""
    raw = random.gamma(1.0, size=shape).reshape(shape[0], -1)
    counts = 1 + np.floor(raw / raw.sum(1, keepdims=True) * (2**20 - raw.shape[1]))
    counts[:, 0] += 2**20 - counts.sum(1)
    return (counts / 2**20).reshape(shape)


def make_world(seed):
    """Joint law p(x, z) [27, 8], generator p_phi(x | z) [8, 27], reranker logits s(x) [27, N]."""
    random = np.random.default_rng(seed)
    joint = random_law(random, 1, len(X), len(Z))[0]
    p_x, p_z = joint.sum(1), joint.sum(0)
    return SimpleNamespace(
        p_x=p_x,
        p_z=p_z,
        p_z_given_x=joint / p_x[:, None],
        p_x_given_z=(joint / p_z).T,
        p_phi=random_law(random, len(Z), len(X)),
        logits=random.normal(size=X.shape) * 2,
        seed=seed,
    )


def expected_bce(loss, world, law, z):
    """Enumerate N E_law[...]: rows are all x, weights their probabilities.

    The losses are means over candidates; times N they are means over requests of a sum over
    candidates, which is the log-likelihood of a list.
    """
    with jax.enable_x64(True):
        weights = np.broadcast_to(law[:, None], X.shape)
        labels = np.broadcast_to(z, X.shape)
        arrays = (jnp.asarray(world.logits), jnp.asarray(labels), jnp.asarray(weights))
        return N * float(loss(*arrays, loss="bce"))


@pytest.mark.parametrize("seed", range(4))
def test_identity_of_the_direct_loss(seed):
    """-log p(z) = L_direct + L_1 + L_2 for every z.

    Bayes gives -log p(z) = -log p(z|x) - log p(x) + log p(x|z) for every x. Take the mean over
    the MARGINAL p_x (not over p(x|z), from which training pairs come), and add and subtract
    log q: L_direct = -E log q(z|x), L_1 = +E[log q - log p(z|x)], and the last two terms are
    -E_{p_x}[log p_x - log p_{x|z}] = -KL(p_x || p_{x|z}) = L_2 <= 0.
    """
    world = make_world(seed)
    for i, z in enumerate(Z):
        direct = expected_bce(objectives.direct_loss, world, world.p_x, z)
        log_q = list_log_likelihood(world.logits, z)
        l_1 = world.p_x @ (log_q - np.log(world.p_z_given_x[:, i]))
        l_2 = -special.rel_entr(world.p_x, world.p_x_given_z[i]).sum()
        assert l_2 <= 0
        np.testing.assert_allclose(direct + l_1 + l_2, -np.log(world.p_z[i]), rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_identity_of_equation_5(seed):
    """-log p(z) = L_z + L_adv + L_x + delta_x for every z, every p_phi and every q_theta.

    The same Bayes line under p_phi(x'|z): L_z = -E log q, L_adv = +E[log q - log p(z|x')],
    L_x = +KL(p_phi || p_x) with the marginal p_x, delta_x = -KL(p_phi || p_{x|z}) <= 0. The two
    KLs share E log p_phi with opposite signs, which leaves -E log p_x + E log p_{x|z}.
    `adversarial_loss` omits -E log p(z|x'), unknown outside such a world: it is added here.
    """
    world = make_world(seed)
    for i, z in enumerate(Z):
        phi = world.p_phi[i]
        l_z = expected_bce(objectives.denoising_loss, world, phi, z)
        l_adv = expected_bce(objectives.adversarial_loss, world, phi, z)
        l_adv -= phi @ np.log(world.p_z_given_x[:, i])
        l_x = special.rel_entr(phi, world.p_x).sum()
        delta_x = -special.rel_entr(phi, world.p_x_given_z[i]).sum()
        assert delta_x <= 0
        np.testing.assert_allclose(l_z + l_adv + l_x + delta_x, -np.log(world.p_z[i]), rtol=1e-12)


def test_gap_closes_for_a_generator_that_is_p_x_given_z():
    world = make_world(0)
    for i, z in enumerate(Z):
        phi = world.p_x_given_z[i]
        l_z = -phi @ list_log_likelihood(world.logits, z)
        l_adv = phi @ (list_log_likelihood(world.logits, z) - np.log(world.p_z_given_x[:, i]))
        l_x = special.rel_entr(phi, world.p_x).sum()
        np.testing.assert_allclose(l_z + l_adv + l_x, -np.log(world.p_z[i]), rtol=1e-12)


def list_log_likelihood(logits, z):
    """log q(z | x) = sum_n [z_n log sigma(s_n) + (1 - z_n) log sigma(-s_n)], independently."""
    return (z * special.log_expit(logits) + (1 - z) * special.log_expit(-logits)).sum(-1)


def test_sampled_losses_converge_to_the_enumerated_expectation():
    """20,000 draws (x', z) of the program's estimate, within four standard errors."""
    world, random, draws = make_world(7), np.random.default_rng(0), 20_000
    i = random.choice(len(Z), draws, p=world.p_z)
    uniform = random.random((draws, 1))
    x = np.minimum((world.p_phi.cumsum(1)[i] < uniform).sum(1), len(X) - 1)
    logits, labels = (jnp.asarray(a, jnp.float32) for a in (world.logits[x], Z[i]))
    ones = jnp.ones_like(labels)
    settings = ObjectiveSettings(lambda_m=0.5)
    total, terms = objectives.reranker_loss(logits, logits, labels, ones, settings=settings)
    each = np.array([[-list_log_likelihood(s, z) / N for s in world.logits] for z in Z])
    law = world.p_z[:, None] * world.p_phi
    mean = (law * each).sum()
    error = np.sqrt((law * (each - mean) ** 2).sum() / draws)
    assert abs(float(terms["denoise"]) - mean) < 4 * error
    np.testing.assert_allclose(total, 1.5 * terms["denoise"], rtol=1e-6)
    _, against = objectives.generator_loss(logits, labels, ones, jnp.float32(0), settings=settings)
    assert float(against["adversarial"]) == -float(terms["denoise"])


def test_bce_value_and_gradient():
    s, z, w = np.float32([[2, -1, 40]]), np.float32([[1, 0, 0.5]]), np.float32([[1, 3, 2]])
    p = special.expit(s.astype(np.float64))
    each = -z * special.log_expit(s) - (1 - z) * special.log_expit(-s.astype(np.float64))
    value, slope = quick_jit(jax.value_and_grad(losses.bce))(s, z, w)
    np.testing.assert_allclose(value, (w * each).sum() / 6, rtol=1e-6)
    np.testing.assert_allclose(slope, w * (p - z) / 6, rtol=1e-5)


def test_unweighted_entries_never_matter():
    w = jnp.float32([[1, 0, 0], [0, 0, 0]])
    s = jnp.float32([[0.3, jnp.nan, -1e9], [jnp.nan, 5, 1e30]])
    z = jnp.float32([[1, 0, jnp.nan], [0, 1, 1]])
    value, slope = quick_jit(jax.value_and_grad(losses.bce))(s, z, w)
    np.testing.assert_allclose(value, np.log1p(np.exp(-0.3)), rtol=1e-6)
    assert (np.asarray(slope).ravel()[1:] == 0).all()
    value, slope = quick_jit(jax.value_and_grad(losses.bce))(s, z, jnp.zeros_like(w))
    assert value == 0
    assert (slope == 0).all()


BCE = quick_jit(losses.bce)
NUMBERS = st.lists(st.floats(-30, 30, width=32), min_size=4, max_size=4)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(s=NUMBERS, z=st.lists(st.booleans(), min_size=4, max_size=4), scale=st.floats(0.1, 10))
def test_bce_is_positive_finite_and_ignores_the_scale_of_weights(s, z, scale):
    s, z, w = jnp.float32([s]), jnp.float32([z]), jnp.float32([[1, 2, 0.5, 1]])
    value = BCE(s, z, w)
    assert 0 <= value < 31
    np.testing.assert_allclose(BCE(s, z, scale * w), value, rtol=1e-5, atol=1e-12)


def test_totals_are_the_weighted_terms():
    random = np.random.default_rng(0)
    x, x_noisy = (jnp.asarray(random.normal(size=(2, 4)), jnp.float32) for _ in range(2))
    z, w = jnp.float32([[1, 0, 0, 1], [0, 0, 1, 0]]), jnp.ones((2, 4))
    settings = ObjectiveSettings(lambda_m=0.3, lambda_adv=0.5, lambda_x=2.0)
    total, terms = objectives.reranker_loss(x, x_noisy, z, w, settings=settings)
    assert set(terms) == {"direct", "denoise"}
    np.testing.assert_allclose(total, terms["direct"] + 0.3 * terms["denoise"], rtol=1e-6)
    total, terms = objectives.generator_loss(x_noisy, z, w, jnp.float32(0.7), settings=settings)
    assert set(terms) == {"adversarial", "regulariser"}
    np.testing.assert_allclose(total, -0.5 * losses.bce(x_noisy, z, w) + 1.4, rtol=1e-6)


def numpy_attention_rank(s, z, w):
    """AttRank by loops, in float64: value, and gradient by hand."""
    value, slope, counted = 0.0, np.zeros(s.shape), 0
    for b, judged in enumerate(w > 0):
        gains = np.where(z[b] > 0, np.exp(z[b]), 0.0) * w[b]
        if not judged.any() or gains.sum() == 0:
            continue
        target = gains / gains.sum()
        p = special.softmax(s[b, judged].astype(np.float64))
        value -= (target[judged] * np.log(p)).sum()
        slope[b, judged] = p - target[judged]
        counted += 1
    return value / max(counted, 1), slope / max(counted, 1)


def list_wise_cases():
    """Logits, labels, weights: padding, no positive, graded labels, unequal weights, nothing."""
    random = np.random.default_rng(2)
    s = random.normal(size=(5, 6)).astype(np.float32) * 2
    z = (random.random((5, 6)) < 0.4).astype(np.float32)
    w = (random.random((5, 6)) < 0.8).astype(np.float32)
    z[0], w[1] = 0, 0
    yield s, z * (w > 0), w
    yield s, z * (w > 0) * 0.5, w * np.arange(1, 7, dtype=np.float32)
    yield s, np.zeros_like(z), w


@pytest.mark.parametrize("case", range(3))
def test_list_wise_losses_of_both_players_equal_a_slow_reference(case):
    s, z, w = list(list_wise_cases())[case]
    expected, slope = numpy_attention_rank(s, z, w)
    for term, sign in (
        (objectives.direct_loss, 1),
        (objectives.denoising_loss, 1),
        (objectives.adversarial_loss, -1),
    ):
        given = quick_jit(jax.value_and_grad(partial(term, loss="attention_rank")))
        value, found = given(np.where(w > 0, s, np.nan), z, w)
        np.testing.assert_allclose(value, sign * expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(found, sign * slope, rtol=1e-4, atol=1e-6)


def test_list_wise_weights_are_those_of_the_settings():
    s, z, w = next(list_wise_cases())
    settings = ObjectiveSettings(loss="attention_rank", lambda_m=0.3, lambda_adv=0.5, lambda_x=2.0)
    direct, denoise = (numpy_attention_rank(a, z, w)[0] for a in (s, 2 * s))
    total, terms = objectives.reranker_loss(s, 2 * s, z, w, settings=settings)
    np.testing.assert_allclose(total, direct + 0.3 * denoise, rtol=1e-5)
    np.testing.assert_allclose([terms["direct"], terms["denoise"]], [direct, denoise], rtol=1e-5)
    total, terms = objectives.generator_loss(2 * s, z, w, jnp.float32(0.7), settings=settings)
    np.testing.assert_allclose(total, -0.5 * denoise + 1.4, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("case", range(3))
def test_means_of_parts_add_up_by_their_share_of_the_mass(loss, case):
    s, z, w = list(list_wise_cases())[case]
    mean, mass, _ = LOSSES[loss]
    parts = [(s[:2], z[:2], w[:2]), (s[2:], z[2:], w[2:])]
    masses = np.array([mass(*part[1:]) for part in parts])
    np.testing.assert_allclose(masses.sum(), mass(z, w), rtol=1e-6)
    shares = masses / max(masses.sum(), 1e-9)
    means = [mean(*part) for part in parts]
    np.testing.assert_allclose(np.dot(shares, means), mean(s, z, w), rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_logits_are_log_odds_only_where_the_loss_fixes_their_offset(loss):
    s, z, w = next(list_wise_cases())
    moved = abs(LOSSES[loss].mean(s + 3.0, z, w) - LOSSES[loss].mean(s, z, w))
    assert (moved > 0.1) if LOSSES[loss].log_odds else (moved < 1e-5)


@pytest.mark.parametrize(
    ("knobs", "match"),
    [
        (
            {"loss": "attention_rank", "label_smoothing": 0.1},
            r"label_smoothing is 0\.1, .* set it to 0, or the loss to 'bce'",
        ),
        ({"loss": "hinge"}, "loss is 'hinge': it must be one of bce, attention_rank"),
        ({"lambda_m": -0.1}, "lambda_m is -0.1: it must be 0 or more"),
        ({"lambda_adv": np.nan}, "lambda_adv is nan"),
        ({"lambda_x": np.inf}, "lambda_x is inf"),
        ({"lambda_x": 1e4}, "lambda_x is 10000.0: it must be 0 or more and at most 1000"),
    ],
)
def test_settings_out_of_range_are_named(knobs, match):
    with pytest.raises(ValueError, match=match):
        ObjectiveSettings(**knobs)


def test_scores_are_hidden_from_whole_requests_whatever_their_batch():
    scores, index = jnp.ones((4000, 3)), jnp.arange(4000, dtype=jnp.uint32)
    shown = np.asarray(objectives.hide_scores(scores, index, jax.random.key(0), rate=0.3))
    assert set(np.unique(shown.sum(axis=1))) == {0.0, 3.0}
    assert shown[:, 0].mean() == pytest.approx(0.7, abs=3 * np.sqrt(0.3 * 0.7 / 4000))
    some = objectives.hide_scores(scores[7:9], index[7:9], jax.random.key(0), rate=0.3)
    np.testing.assert_array_equal(some, shown[7:9])


def test_regulariser_counts_judged_candidates_only():
    distance = divergences.build("gaussian", conditional=True)
    scores, labels = jnp.float32([[0.2, 0.4, 0.9, 0.7]]), jnp.float32([[0, 0, 1, 1]])
    weights = jnp.float32([[1, 2, 1, 0]])
    batch = SimpleNamespace(scores=scores, labels=labels, weights=weights)
    value = objectives.regulariser_loss(distance, 1 - scores, batch)
    expected = distance(1 - scores, scores, labels=labels, where=weights > 0)
    dirty = objectives.regulariser_loss(distance, (1 - scores).at[0, 3].set(jnp.nan), batch)
    assert value == expected == dirty
