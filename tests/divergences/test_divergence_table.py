"""Contract of all divergences, then each of them against an independent reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factories import quick_jit
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from dnr_jax import divergences
from dnr_jax.divergences import moments

OPTIONS = {
    "density": dict(bandwidth=0.05),
    "density_exact": dict(bandwidth=0.05),
    "density_pallas": dict(bandwidth=0.05),
    "histogram": dict(bins=32, smoothing=1e-3),
    "gaussian": {},
    "beta": {},
    "energy": {},
    "mmd": dict(bandwidth=0.1),
}
SHAPE = (8, 12)
BOTH = [(name, conditional) for name in OPTIONS for conditional in (False, True)]
PROGRAMS = {}


def program(name, conditional=False):
    """Jit value and gradient once per table entry."""
    if (name, conditional) not in PROGRAMS:
        distance = divergences.build(name, conditional=conditional, **OPTIONS[name])

        def call(generated, observed, labels, where):
            return distance(generated, observed, labels=labels, where=where)

        PROGRAMS[name, conditional] = quick_jit(jax.value_and_grad(call))
    return PROGRAMS[name, conditional]


def make(seed=0):
    random = np.random.default_rng(seed)
    labels = (random.random(SHAPE) < 0.3).astype(np.float32)
    observed = random.beta(2 + 3 * labels, 3).astype(np.float32)
    generated = random.beta(1.5, 1.5, SHAPE).astype(np.float32)
    where = random.random(SHAPE) < 0.8
    where[0] = False
    return tuple(jnp.asarray(a) for a in (generated, observed, labels, where))


def test_every_divergence_is_tried():
    assert set(OPTIONS) == set(divergences.DIVERGENCES)


@pytest.mark.parametrize(("name", "conditional"), BOTH)
def test_positive_apart_and_zero_for_equal_samples(name, conditional):
    generated, observed, labels, where = make()
    run = program(name, conditional)
    value, slope = run(generated, observed, labels, where)
    assert value.shape == ()
    assert value.dtype == jnp.float32
    assert value > 1e-3
    assert np.isfinite(slope).all()
    equal, _ = run(observed, observed, labels, where)
    np.testing.assert_allclose(equal, 0, atol=2e-5)


@pytest.mark.parametrize(("name", "conditional"), BOTH)
def test_padding_content_never_matters(name, conditional):
    generated, observed, labels, where = make()
    run = program(name, conditional)
    value, slope = run(generated, observed, labels, where)
    dirt = [jnp.where(where, a, jnp.nan) for a in (generated, observed, labels)]
    dirty_value, dirty_slope = run(*dirt, where)
    np.testing.assert_array_equal(dirty_value, value)
    np.testing.assert_array_equal(dirty_slope, slope)
    assert (np.asarray(slope)[~np.asarray(where)] == 0).all()


@pytest.mark.parametrize(("name", "conditional"), BOTH)
def test_degenerate_batches_are_finite(name, conditional):
    generated, observed, labels, where = make()
    run, nothing = program(name, conditional), jnp.zeros(SHAPE, bool)
    one = nothing.at[3, 4].set(True)
    ends = jnp.round(labels)
    level = jnp.full(SHAPE, 0.3, jnp.float32)
    cases = {
        "nothing real": (generated, observed, labels, nothing),
        "one candidate": (generated, observed, labels, one),
        "all positive": (generated, observed, jnp.ones(SHAPE), where),
        "all negative": (generated, observed, jnp.zeros(SHAPE), where),
        "constant generated": (level, observed, labels, where),
        "constant observed": (generated, level, labels, where),
        "both constant": (jnp.zeros(SHAPE), jnp.ones(SHAPE), labels, where),
        "zeros and ones": (ends, 1 - ends, labels, where),
        "duplicates": (jnp.round(generated, 1), jnp.round(observed, 1), labels, where),
    }
    for case, arrays in cases.items():
        value, slope = run(*arrays)
        assert np.isfinite(value), case
        assert np.isfinite(slope).all(), case
    value, slope = run(*cases["nothing real"])
    assert value == 0
    assert (slope == 0).all()


@pytest.mark.parametrize(("name", "conditional"), BOTH)
def test_gradient_is_the_finite_difference(name, conditional):
    generated, observed, labels, where = make()
    generated = 0.1 + 0.8 * generated
    direction = jnp.sin(3.0 * generated)
    # The histogram's slope jumps at the edge of a bin: a short step seldom meets one.
    run, step = program(name, conditional), 5e-5 if name == "histogram" else 1e-3
    _, slope = run(generated, observed, labels, where)
    up, _ = run(generated + step * direction, observed, labels, where)
    down, _ = run(generated - step * direction, observed, labels, where)
    expected = (float(up) - float(down)) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(slope, direction), expected, rtol=0.05, atol=2e-3)


@pytest.mark.parametrize("name", OPTIONS)
def test_descent_brings_the_laws_together(name):
    """A generator far below the observed scores is pulled up, label by label."""
    _, observed, labels, where = make()
    run = program(name, True)
    generated = jnp.where(labels > 0.5, 0.15, 0.05) + 0.1 * jnp.linspace(0, 1, 96).reshape(SHAPE)
    first, slope = run(generated, observed, labels, where)
    assert jnp.vdot(slope, jnp.ones(SHAPE)) < 0
    nearer, _ = run(generated + 0.1, observed, labels, where)
    assert nearer < first


@pytest.mark.parametrize("conditional", [False, True])
def test_observed_scores_have_no_gradient(conditional):
    generated, observed, labels, where = make()
    distance = divergences.build("gaussian", conditional=conditional)
    slope = quick_jit(jax.grad(lambda o: distance(generated, o, labels=labels, where=where)))
    assert (np.asarray(slope(observed)) == 0).all()


@pytest.mark.parametrize("name", OPTIONS)
def test_conditional_is_the_balanced_mean_of_both_labels(name):
    generated, observed, labels, where = make()
    positive = labels > 0.5
    marginal = program(name)
    parts = [
        marginal(generated, observed, labels, where & side)[0] for side in (positive, ~positive)
    ]
    value, _ = program(name, True)(generated, observed, labels, where)
    np.testing.assert_allclose(value, 0.5 * sum(parts), rtol=1e-5)
    alone, _ = program(name, True)(generated, observed, jnp.ones(SHAPE), where)
    np.testing.assert_allclose(alone, 0.5 * marginal(generated, observed, labels, where)[0], 1e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_conditional_sees_swapped_labels(name):
    """Right pooled law, wrong law of each label: only the conditional form objects."""
    _, observed, labels, where = make()
    flat = np.asarray(observed).copy()
    real = np.asarray(where)
    flat[real] = np.random.default_rng(0).permutation(flat[real])
    assert program(name)(jnp.asarray(flat), observed, labels, where)[0] < 1e-4
    assert program(name, True)(jnp.asarray(flat), observed, labels, where)[0] > 2e-3


def samples(seed=0):
    generated, observed, labels, where = make(seed)
    keep = np.asarray(where)
    values = [np.asarray(a, np.float64)[keep] for a in (generated, observed)]
    return *values, (generated, observed, labels, where)


@pytest.mark.parametrize("name", ["density", "density_exact", "density_pallas"])
def test_density_kl_agrees_with_scipy(name):
    x, y, arrays = samples()

    def log_density(data):
        return np.log(stats.gaussian_kde(data, bw_method=0.05 / data.std(ddof=1))(x))

    expected = np.mean(log_density(x) - log_density(y))
    np.testing.assert_allclose(program(name)(*arrays)[0], expected, atol=1e-3)


@pytest.mark.parametrize("name", ["density", "density_pallas"])
@pytest.mark.parametrize("conditional", [False, True])
def test_density_gradients_point_the_same_way(name, conditional):
    """L_x trains the same whichever implementation computes it."""
    *_, arrays = samples()
    exact, other = (program(n, conditional)(*arrays)[1].ravel() for n in ("density_exact", name))
    assert np.dot(exact, other) / np.linalg.norm(exact) / np.linalg.norm(other) > 0.9999
    assert np.linalg.norm(other) / np.linalg.norm(exact) == pytest.approx(1, abs=0.01)


def test_histogram_kl_agrees_with_numpy():
    x, y, arrays = samples()
    p, q = (
        np.mean(np.maximum(0, 1 - np.abs(v[:, None] * 31 - np.arange(32))), 0) * 0.999 + 0.001 / 32
        for v in (x, y)
    )
    np.testing.assert_allclose(program("histogram")(*arrays)[0], special.rel_entr(p, q).sum(), 1e-4)


def test_gaussian_kl_is_the_integral():
    x, y, arrays = samples()
    p, q = (stats.norm(v.mean(), np.sqrt(v.var() + moments.VARIANCE_FLOOR)) for v in (x, y))
    expected, _ = integrate.quad(lambda t: p.pdf(t) * (p.logpdf(t) - q.logpdf(t)), -4, 5)
    np.testing.assert_allclose(program("gaussian")(*arrays)[0], expected, rtol=1e-4)


def test_beta_kl_is_the_integral():
    x, y, arrays = samples()

    def fit(values):
        values = moments.SHRINK + (1 - 2 * moments.SHRINK) * values
        m, v = values.mean(), values.var()
        c = (m * (1 - m) - v) / (v + moments.VARIANCE_FLOOR)
        return stats.beta(m * c, (1 - m) * c)

    p, q = fit(x), fit(y)
    expected, _ = integrate.quad(lambda t: p.pdf(t) * (p.logpdf(t) - q.logpdf(t)), 0, 1)
    np.testing.assert_allclose(program("beta")(*arrays)[0], expected, rtol=1e-3)


def test_energy_distance_agrees_with_scipy():
    x, y, arrays = samples()
    expected = stats.energy_distance(x, y) ** 2  # SciPy returns the root
    np.testing.assert_allclose(program("energy")(*arrays)[0], expected, rtol=1e-4)


def test_mmd_agrees_with_all_pairs():
    x, y, arrays = samples()

    def mean_kernel(a, b):
        return np.exp(-0.5 * ((a[:, None] - b) / 0.1) ** 2).mean()

    expected = mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y)
    np.testing.assert_allclose(program("mmd")(*arrays)[0], expected, rtol=1e-3)


GRID = st.lists(st.integers(0, 20), min_size=96, max_size=96)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(generated=GRID, observed=GRID)
def test_never_below_zero(generated, observed):
    _, _, labels, where = make()
    x, y = (jnp.asarray(v, jnp.float32).reshape(SHAPE) / 20 for v in (generated, observed))
    for name in ("density", "histogram", "gaussian", "beta", "energy", "mmd"):
        value, slope = program(name)(x, y, labels, where)
        # The mean over a sample is a KL only on average: nearly equal laws may come out below 0.
        assert value >= (-0.05 if name == "density" else -1e-4), name
        assert np.isfinite(slope).all(), name


def test_works_under_vmap_over_seeds():
    generated, observed, labels, where = make()
    stack = jnp.stack([generated, observed])
    for name in ("density", "density_exact", "density_pallas", "energy"):
        values, _ = jax.vmap(program(name), (0, None, None, None))(stack, observed, labels, where)
        single, _ = program(name)(generated, observed, labels, where)
        np.testing.assert_allclose(values, [single, 0], atol=2e-5)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("kl", {}, "there is no divergence 'kl'.*density"),
        ("density", dict(bandwith=0.1), "density: there is no knob 'bandwith'; did you mean"),
        ("energy", dict(bandwidth=0.1), "there is no knob 'bandwidth'.*Known: conditional"),
        ("density", dict(bandwidth=-1.0), "bandwidth is -1.0: it must be above 0.0004884"),
        ("density", dict(bandwidth=1e-4), "bandwidth is 0.0001: it must be above 0.0004884"),
        ("density_exact", dict(bandwidth=0.0), "bandwidth is 0.0: it must be 0.0001 or more"),
        ("density_pallas", dict(bandwidth=np.inf), "bandwidth is inf"),
        ("mmd", dict(bandwidth=0.0), "bandwidth is 0.0: it must be above 0.0004884"),
        ("histogram", dict(bins=1, smoothing=0.1), "bins is 1: it must be 2 or more"),
        ("histogram", dict(bins=8, smoothing=0.0), "smoothing is 0.0: it must be 1e-09 or more"),
    ],
)
def test_bad_input_is_named(name, options, match):
    with pytest.raises(ValueError, match=match):
        divergences.build(name, conditional=False, **options)


def test_bins_of_the_score_are_compared_apart_and_weigh_as_their_candidates():
    arrays = make(seed=4)
    generated, observed, labels, where = map(np.asarray, arrays)
    expected = 0.0
    for positive in (True, False):
        same = where & ((labels > 0.5) == positive)
        for low in (0.0, 1 / 3, 2 / 3):
            group = same & (low <= observed) & (observed < low + 1 / 3)
            if group.any():
                root = stats.energy_distance(generated[group], observed[group])
                expected += group.sum() / same.sum() / 2 * root**2
    binned = divergences.build("energy", conditional=True, score_bins=3)
    found, dirty = (
        binned(values[0], values[1], labels=values[2], where=arrays[3])
        for values in (arrays, [jnp.where(arrays[3], a, jnp.nan) for a in arrays[:3]])
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_array_equal(dirty, found)


def test_bins_without_labels_are_refused():
    with pytest.raises(ValueError, match="score_bins is 3, which only a conditional"):
        divergences.build("energy", score_bins=3)
