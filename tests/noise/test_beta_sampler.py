"""The fast Beta draws: their law, their gradient and their ends, against SciPy."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factories import quick_jit
from scipy import special, stats

from dnr_jax.noise import beta, beta_sampler

SHAPES = [(0.5, 0.5), (2.3, 0.7), (1.0, 1.0), (0.1, 0.1), (1000.0, 1000.0), (10.0, 990.0)]
HARD = [(0.02, 0.3), (30.0, 0.2), (0.001, 0.099)]  # of spikes at an end
COUNT = 100_000

# Shapes are arguments, so that each program is compiled once.
learned = quick_jit(beta_sampler.learned_angle_table)
slopes = quick_jit(jax.jacfwd(beta_sampler.learned_angle_table, argnums=(0, 1)))
draws = quick_jit(lambda key, angles: beta_sampler.draw(key, (COUNT,), angles))
slope_of_mean = quick_jit(
    jax.grad(
        lambda a, b: beta_sampler.draw(
            jax.random.key(0), (COUNT,), beta_sampler.learned_angle_table(a, b)
        ).mean(),
        argnums=(0, 1),
    )
)


def law_error(angles, a, b):
    """Sup over x of |G(x) - F(x)|, G the law of draws: the Kolmogorov-Smirnov distance, exactly.

    Draws that float32 rounds to an end of [0, 1] are no fault of the table.
    """
    u = np.concatenate([np.linspace(2**-23, 0.5, 50_001), np.logspace(-6.9, -1, 5_000)])
    u = np.concatenate([u, 1 - u])
    root = np.sqrt(0.5 * np.minimum(u, 1 - u))
    knots = np.linspace(0, 1, beta_sampler.KNOTS + 1)
    theta = np.interp(np.where(u < 0.5, root, 1 - root), knots, np.float64(angles))
    x = np.sin(theta) ** 2
    inside = (x > 1e-12) & (x < 1 - 1e-4)
    return np.abs(special.betainc(a, b, x) - u)[inside].max()


@pytest.mark.parametrize(("a", "b"), SHAPES + HARD)
def test_the_law_of_the_tables_is_the_beta_law(a, b):
    hard = (a, b) in HARD
    assert law_error(beta_sampler.angle_table(a, b), a, b) < (3e-5 if hard else 6e-6)
    table = np.asarray(learned(jnp.float32(a), jnp.float32(b)))
    assert law_error(table, a, b) < (3e-3 if hard else 2e-5)


@pytest.mark.parametrize(("a", "b"), [*SHAPES, HARD[0]])
@pytest.mark.parametrize("table", [beta_sampler.angle_table, learned])
def test_draws_follow_the_beta_law(a, b, table):
    """Two in a thousand right samplers would fail at this distance: the keys are fixed."""
    angles = table(jnp.float32(a), jnp.float32(b))
    check_draws(draws(jax.random.key(0), jnp.asarray(angles)), a, b)


def test_the_arcsine_law_is_drawn_by_its_own_formula():
    draw = quick_jit(beta.beta_draw(beta.BetaSettings()))
    check_draws(draw(jax.random.key(1), jnp.zeros(COUNT)), 0.5, 0.5)


def check_draws(x, a, b):
    x = np.sort(np.float64(x))
    distance = np.abs(special.betainc(a, b, x) - (np.arange(COUNT) + 0.5) / COUNT)
    assert distance[(x > 1e-12) & (x < 1 - 1e-4)].max() < 1.86 / np.sqrt(COUNT)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_gradient_of_a_draw_is_the_implicit_one(a, b):
    """dx/da = -(dF/da)(x) / f(x), with dF/da by central differences of SciPy's betainc."""
    shapes = jnp.float32(a), jnp.float32(b)
    table, (by_a, by_b) = learned(*shapes), slopes(*shapes)
    theta = np.float64(table)
    x, to_x = np.sin(theta) ** 2, np.sin(2 * theta)
    keep = slice(20, -20)  # of probability 8e-4: beyond, the differences lose their digits
    da, db = 1e-4 * a, 1e-4 * b
    density = stats.beta.pdf(x, a, b)
    exact = (
        -(special.betainc(a + da, b, x) - special.betainc(a - da, b, x)) / (2 * da * density),
        -(special.betainc(a, b + db, x) - special.betainc(a, b - db, x)) / (2 * db * density),
    )
    for found, expected in zip((by_a, by_b), exact, strict=True):
        error = to_x * np.float64(found) - expected
        assert np.abs(error[keep]).max() < 2e-3 * np.abs(expected[keep]).max()
        assert np.isfinite(found).all()


@pytest.mark.parametrize(("a", "b"), [*SHAPES, *HARD[:2], (0.02, 0.02)])
def test_gradient_of_the_mean_is_known(a, b):
    """E x = a / (a + b), so its gradient is (b, -a) / (a + b)^2."""
    found = slope_of_mean(jnp.float32(a), jnp.float32(b))
    np.testing.assert_allclose(found, np.array([b, -a]) / (a + b) ** 2, rtol=1e-2)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.02, 0.02)])
def test_draws_stay_inside_the_open_interval(a, b):
    draw = quick_jit(beta.beta_draw(beta.BetaSettings(), beta.BetaShape(a, b)))
    x = draw(jax.random.key(0), jnp.zeros(COUNT))
    assert ((x > 0) & (x < 1)).all()
    assert np.isfinite(jax.scipy.special.logit(x)).all()
    # The ends themselves do occur before they are moved inside.
    assert (x.max() == beta_sampler.HIGH) & (x.min() <= 1e-9)


SHARDED = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from dnr_jax import ops
from dnr_jax.noise.beta import BetaSettings, BetaShape, beta_draw
mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
index = np.arange(7, 15, dtype=np.uint32)
for a in (0.5, 2.3):
    draw = beta_draw(BetaSettings(), BetaShape(a, 0.5))
    sample = jax.jit(lambda i, z: ops.per_request(draw, jax.random.key(3), i, z))
    whole = np.asarray(sample(index, np.zeros((8, 5), np.float32)))
    place = NamedSharding(mesh, PartitionSpec("data"))
    shards = sample(jax.device_put(index, place), jax.device_put(np.zeros((8, 5)), place))
    assert len(shards.sharding.device_set) == 4
    # As the same requests alone, to the bit. A program of another shape may round otherwise.
    alone = [sample(index[k : k + 2], np.zeros((2, 5), np.float32)) for k in range(0, 8, 2)]
    np.testing.assert_array_equal(shards, np.concatenate(alone))
    np.testing.assert_array_max_ulp(np.asarray(shards), whole, maxulp=4)
    assert len(np.unique(whole)) == whole.size
"""


def test_draws_do_not_depend_on_the_shard():
    root = Path(__file__).parents[2]
    environment = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": str(root),
    }
    command = [sys.executable, "-c", SHARDED]
    done = subprocess.run(command, env=environment, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
