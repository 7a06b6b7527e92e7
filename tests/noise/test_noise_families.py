"""Contract of all noise families, then each family against an independent reference."""

import factories
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factories import quick_jit
from scipy import stats

from dnr_jax import noise, ops
from dnr_jax.noise import GENERATORS, NOISES, Observed, beta, mixing, resampled
from dnr_jax.types import Task

TASK = Task(factories.make_spec())
POOLS = resampled.Pools(np.linspace(0, 0.5, 40, dtype=np.float32), np.float32([0.6, 0.7, 0.9]))
# Scores whose pools are `POOLS`.
OBSERVED = Observed(
    np.concatenate(POOLS)[None], np.repeat([0.0, 1.0], [40, 3])[None], np.ones((1, 43), bool)
)
GAUSSIAN = noise.build_draw("gaussian")
OPTIONS = {
    "gaussian": dict(lambda_c=0.4),
    "beta": dict(lambda_c=0.4, alpha=2.0, beta=0.7),
    "resampled": dict(observed=OBSERVED),
    "learned_mix": dict(width=8, embedding_width=4, lambda_c=0.4, output="sigmoid"),
    "learned_bounded": dict(width=8, embedding_width=4, radius=0.2),
    "learned_direct": dict(width=8, embedding_width=4, output="sigmoid"),
    "learned_rate": dict(start=0.25),
}
HEURISTIC = ("gaussian", "beta", "resampled")


def build(name, *, base=GAUSSIAN, **changes):
    """Make a family of either table with `OPTIONS`, changed."""
    options = OPTIONS[name] | changes
    if name in NOISES:
        return noise.build(name, **options)
    return noise.build_generator(name, TASK, base, **options)


def make_batch():
    """Request 0 has no candidate, request 1 has one, some others are padded."""
    batch = factories.make_batch()
    where = batch.request.where.at[0].set(False).at[1].set(jnp.arange(8) == 3)
    real = batch.request.replace(where=where)
    labels = jnp.asarray(np.random.default_rng(0).random(where.shape) < 0.4, jnp.float32)
    return batch.replace(
        request=real,
        labels=jnp.where(where, labels, 0),
        scores=jnp.where(where, batch.scores, 0),
        weights=where.astype(jnp.float32),
    )


@pytest.fixture(scope="module")
def batch():
    return make_batch()


@pytest.fixture(scope="module")
def families():
    """Family, its parameters and its jitted sampler, by name."""
    batch, made = make_batch(), {}
    for name in OPTIONS:
        family = build(name)
        params = quick_jit(family.init)(jax.random.key(1), batch)
        made[name] = (family, params, quick_jit(family.sample))
    return made


def test_every_family_is_tried():
    assert set(OPTIONS) == {*NOISES, *GENERATORS}
    assert set(HEURISTIC) == set(NOISES)


@pytest.mark.parametrize("name", OPTIONS)
def test_values_range_and_padding(name, batch, families):
    _, params, sample = families[name]
    x = sample(params, jax.random.key(2), batch)
    assert x.shape == batch.labels.shape
    assert x.dtype == jnp.float32
    assert ((x >= 0) & (x <= 1)).all()
    assert (np.asarray(x)[~np.asarray(batch.request.where)] == 0).all()
    other = sample(params, jax.random.key(3), batch)
    assert (np.asarray(other) != np.asarray(x))[2:].any()


@pytest.mark.parametrize("name", OPTIONS)
def test_draw_belongs_to_the_request_not_to_its_batch(name, batch, families):
    _, params, sample = families[name]
    key, whole = jax.random.key(5), np.asarray(sample(params, jax.random.key(5), batch))
    # The draws are equal bit by bit; a network's matrix product may round by batch size.
    atol = 0 if name in HEURISTIC else 1e-6
    for rows in ([5, 3, 1, 0, 2, 4], [4, 4, 5, 5, 1, 2], [2, 5], [1, 3]):
        part = jax.tree.map(lambda a, rows=rows: a[jnp.asarray(rows)], batch)
        np.testing.assert_allclose(sample(params, key, part), whole[rows], rtol=0, atol=atol)


@pytest.mark.parametrize("name", OPTIONS)
def test_padding_content_never_matters(name, batch, families):
    _, params, sample = families[name]
    where = batch.request.where
    dirty = batch.replace(
        labels=jnp.where(where, batch.labels, jnp.nan),
        scores=jnp.where(where, batch.scores, jnp.nan),
        request=batch.request.replace(
            candidates=jnp.where(where[..., None], batch.request.candidates, 7)
        ),
    )
    clean_x = sample(params, jax.random.key(2), batch)
    np.testing.assert_array_equal(sample(params, jax.random.key(2), dirty), clean_x)


@pytest.mark.parametrize("name", ["gaussian", "learned_mix"])
def test_eager_equals_jit(name, batch, families):
    family, params, sample = families[name]
    key = jax.random.key(2)
    expected = sample(params, key, batch)
    np.testing.assert_allclose(family.sample(params, key, batch), expected, atol=1e-6)


@pytest.mark.parametrize("name", HEURISTIC)
def test_heuristics_have_no_parameters(name, families):
    assert families[name][1] == {}


@pytest.mark.parametrize(
    ("name", "output"),
    [
        *(("learned_mix", "sigmoid"), ("learned_mix", "min_max")),
        *(("learned_direct", "sigmoid"), ("learned_bounded", "sigmoid")),
    ],
)
def test_learned_gradients_are_finite_and_reach_every_part(name, output, batch):
    family = build(name, output=output)
    params = quick_jit(family.init)(jax.random.key(0), batch)
    assert {k: v["embedding"].shape for k, v in params.items() if "embedding" in v} == {
        "item": (40, 4),
        "user": (12, 4),
    }
    target = batch.scores

    @quick_jit
    @jax.grad
    def slope(p):
        return jnp.sum((family.sample(p, jax.random.key(1), batch) - target) ** 2)

    for path, leaf in jax.tree_util.tree_leaves_with_path(slope(params)):
        assert np.isfinite(leaf).all(), path
        # Min-max takes a constant offset away, and with it the gradient of the last bias.
        if "output_layer" not in str(path):
            assert np.abs(leaf).max() > 0, path


@pytest.mark.parametrize("base", NOISES)
def test_learned_noise_feels_its_base(base, batch):
    family = build("learned_direct", base=noise.build_draw(base, OBSERVED))
    params = quick_jit(family.init)(jax.random.key(0), batch)
    sample = quick_jit(family.sample)
    draws = np.stack([sample(params, jax.random.key(i), batch) for i in range(5)])
    assert (draws.std(0)[np.asarray(batch.request.where)] > 0).mean() > 0.8


def test_group_form_is_learned_mix_with_share_one_eleventh(batch):
    direct = build("learned_direct", output="min_max")
    family = build("learned_mix", lambda_c=1 / 11, output="min_max")
    params, key = quick_jit(family.init)(jax.random.key(0), batch), jax.random.key(4)
    normalised = quick_jit(direct.sample)(params, key, batch)
    expected = ops.min_max(batch.labels + 0.1 * normalised, batch.request.where)
    np.testing.assert_allclose(quick_jit(family.sample)(params, key, batch), expected, atol=1e-6)


def test_a_bounded_adversary_stays_near_the_observed_scores(batch, families):
    """It moves each score by up to the radius, both ways, and never out of [0, 1]."""
    family, params, _ = families["learned_bounded"]
    bold = jax.tree.map(lambda leaf: 30 * leaf, params)
    moved = np.asarray(quick_jit(family.sample)(bold, jax.random.key(3), batch) - batch.scores)
    moved = moved[np.asarray(batch.request.where)]
    assert 0.19 < moved.max() <= 0.2 + 1e-6
    assert -0.2 - 1e-6 <= moved.min() < -0.19


def test_a_learned_rate_lies_between_the_observed_score_and_a_fresh_one(batch):
    base = noise.build_draw("resampled", OBSERVED)
    family, key = build("learned_rate", base=base), jax.random.key(4)
    fresh = np.asarray(mixing.draw_batch(base, key, batch))
    x, z, where = map(np.asarray, (batch.scores, batch.labels, batch.request.where))
    first = family.sample(family.init(key, batch), key, batch)
    np.testing.assert_allclose(first, np.where(where, 0.75 * x + 0.25 * fresh, 0), atol=1e-6)
    rates = np.float32([0.2, 0.9])
    params = {"log_odds": jnp.asarray(stats.logistic.ppf(rates), jnp.float32)}
    rate = rates[(z > 0.5).astype(int)]
    expected = np.where(where, (1 - rate) * x + rate * fresh, 0)
    np.testing.assert_allclose(family.sample(params, key, batch), expected, atol=1e-6)
    slope = jax.grad(lambda p: family.sample(p, key, batch).sum())(params)["log_odds"]
    moves = np.where(where, (fresh - x) * rate * (1 - rate), 0)
    by_label = [moves[z < 0.5].sum(), moves[z > 0.5].sum()]
    np.testing.assert_allclose(slope, by_label, rtol=1e-4, atol=1e-5)


def test_mix_is_equation_4():
    labels, where = np.float32([[1, 0, 0, 1]]), np.array([[True, True, True, False]])
    eps = np.float32([[0.5, 0.25, 1.0, 99.0]])
    raw = np.array([0.6 + 0.4 * 0.5, 0.4 * 0.25, 0.4 * 1.0])
    expected = [*(raw - 0.1) / (0.8 - 0.1), 0.0]
    x = mixing.mix(jnp.asarray(labels), jnp.asarray(eps), jnp.asarray(where), lambda_c=0.4)
    np.testing.assert_allclose(x[0], expected, atol=1e-6)
    single = mixing.mix(labels, eps, np.array([[False, True, False, False]]), lambda_c=0.4)
    np.testing.assert_array_equal(single, [[0, 0.5, 0, 0]])


def test_small_noise_keeps_positives_above_negatives(batch, families):
    """(1 - lambda_c) > lambda_c and eps in [0, 1]: no negative can overtake a positive."""
    x, where = np.asarray(families["beta"][2]({}, jax.random.key(0), batch)), batch.request.where
    for row, z, real in zip(x, np.asarray(batch.labels), np.asarray(where), strict=True):
        if z[real].min(initial=1) < z[real].max(initial=0):
            assert row[real & (z > 0.5)].min() > row[real & (z < 0.5)].max()
            np.testing.assert_allclose([row[real].min(), row[real].max()], [0, 1], atol=1e-6)


def test_fit_recovers_the_shape_of_generated_noise():
    random = np.random.default_rng(0)
    labels = (random.random((400, 50)) < 0.3).astype(np.float32)
    where = random.random(labels.shape) < 0.9
    scores = 0.6 * labels + 0.4 * random.beta(2.0, 0.7, labels.shape)
    scores[~where] = np.nan
    observed = Observed(scores, labels, where)
    fitted = beta.fit_beta(observed, lambda_c=0.4)
    np.testing.assert_allclose(fitted, (2.0, 0.7), rtol=0.05)
    entry, (as_given, to_fit) = NOISES["beta"], (beta.BetaSettings(fit=f) for f in (False, True))
    assert entry.fit(to_fit, observed, 0) == fitted
    assert entry.fit(as_given, observed, 0) is None
    assert noise.NOISES["gaussian"].fit is None
    np.testing.assert_allclose(beta.observed_noise(0.68, 1.0, lambda_c=0.4), 0.2)


@pytest.mark.parametrize("scores", [0.0, 1.0, 0.3])
def test_fit_of_constant_scores_stays_usable(scores):
    labels = np.zeros((3, 4), np.float32)
    fitted = beta.fit_beta(
        Observed(np.full((3, 4), scores), labels, np.ones((3, 4), bool)), lambda_c=1.0
    )
    assert min(fitted) >= 10
    np.testing.assert_allclose(fitted[0] / sum(fitted), np.clip(scores, 0.01, 0.99))


def test_fit_of_all_zeros_and_ones_stays_usable():
    scores = np.tile([0.0, 1.0], (2, 2))
    fitted = beta.fit_beta(Observed(scores, np.zeros((2, 4)), np.ones((2, 4))), lambda_c=1.0)
    assert fitted == pytest.approx((0.05, 0.05))


def test_pools_hold_observed_scores_by_label(batch):
    observed = Observed(batch.scores, batch.labels, batch.weights)
    pools = resampled.score_pools(observed, limit=99, seed=0)
    scores, z, real = map(np.asarray, (batch.scores, batch.labels, batch.request.where))
    np.testing.assert_array_equal(pools.negatives, scores[real & (z < 0.5)])
    np.testing.assert_array_equal(pools.positives, scores[real & (z > 0.5)])
    thin = resampled.score_pools(observed, limit=3, seed=0)
    again = resampled.score_pools(observed, limit=3, seed=0)
    assert len(thin.negatives) == len(set(thin.negatives.tolist())) == 3
    assert set(thin.negatives) <= set(pools.negatives)
    np.testing.assert_array_equal(thin.negatives, again.negatives)


def test_resampled_scores_come_from_the_pool_of_their_label():
    draw = quick_jit(noise.build_draw("resampled", OBSERVED))
    labels = jnp.asarray([1.0, 0.0] * 3000)
    x = np.asarray(draw(jax.random.key(0), labels))
    assert set(x[::2]) == set(POOLS.positives)
    assert set(x[1::2]) == set(POOLS.negatives)
    counts = np.unique(x[::2], return_counts=True)[1]
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: noise.build("betta"), "there is no noise 'betta'; did you mean 'beta'?"),
        (lambda: noise.build("learned_mix"), "Known: beta, gaussian, resampled"),
        (lambda: noise.build("gaussian", alpha=1.0), "gaussian: there is no knob 'alpha'"),
        (lambda: noise.build_draw("uniform"), "there is no noise 'uniform'"),
        (lambda: noise.build("gaussian", lambda_c=0.0), "lambda_c is 0.0: it must be above 0"),
        (lambda: noise.build("beta", lambda_c=1.1), "lambda_c is 1.1: it must be above 0 and at"),
        (lambda: noise.build("beta", alpha=0.0), "alpha is 0.0: it must be 0.001 or more"),
        (lambda: noise.build("beta", beta=np.inf), "beta is inf: it must be 0.001 or more"),
        (lambda: noise.build("beta", fit=True), "fit is True, but there are no observed"),
        (lambda: noise.build("resampled"), "needs observed training scores"),
        (lambda: resampled.check_pools(resampled.Pools([], [1.0])), "negatives"),
        (lambda: resampled.check_pools(resampled.Pools([0.1], [1.5])), "positives are outside"),
        (lambda: build("learned_mix", output="tanh"), "it must be one of sigmoid, min_max"),
        (lambda: build("learned_direct", lambda_c=0.4), "there is no knob 'lambda_c'"),
        (lambda: build("learned_direct", width=0), "width is 0: it must be 1 or more"),
        (
            lambda: noise.build_generator("learnt_mix", TASK, GAUSSIAN),
            "there is no generator 'learnt_mix'; did you mean 'learned_mix'?",
        ),
        (
            lambda: beta.fit_beta(
                Observed(np.ones((1, 1)), np.ones((1, 1)), np.zeros((1, 1))), lambda_c=1.0
            ),
            "0 candidates",
        ),
        (
            lambda: resampled.score_pools(
                Observed(np.full((1, 2), np.nan), np.float32([[0, 1]]), np.ones((1, 2))),
                limit=9,
                seed=0,
            ),
            r"\[0, 1\]",
        ),
    ],
)
def test_bad_input_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()
