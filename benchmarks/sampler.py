"""Time, law and gradient of the Beta noise against `jax.random.beta`, for 512 requests of 50.

    python -m benchmarks.sampler

`batch ms` draws all of a batch from one key; `requests ms` draws each request from a key of its
own, as training does; `gradient ms` is a mean of draws with its gradient in both shapes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from benchmarks import harness
from dnr_jax import ops
from dnr_jax.noise import beta_sampler
from dnr_jax.types import Array

LAWS = ((0.5, 0.5), (2.3, 0.7), (20.0, 30.0))
Sampler = Callable[[Array, tuple[int, ...], Array, Array], Array]


def rejection(key: Array, shape: tuple[int, ...], alpha: Array, beta: Array) -> Array:
    return jax.random.beta(key, alpha, beta, shape)


def learned(key: Array, shape: tuple[int, ...], alpha: Array, beta: Array) -> Array:
    """Build the table, once for all requests of these shapes, and draw."""
    return beta_sampler.draw(key, shape, beta_sampler.learned_angle_table(alpha, beta))


def kumaraswamy(key: Array, shape: tuple[int, ...], alpha: Array, beta: Array) -> Array:
    """Draw from a law similar to the Beta law, by its closed-form quantile function."""
    u = jax.random.uniform(key, shape)
    return (1.0 - (1.0 - u) ** (1.0 / beta)) ** (1.0 / alpha)


def uniform(key: Array, shape: tuple[int, ...], alpha: Array, beta: Array) -> Array:
    """Draw the uniform numbers that all samplers start from: a lower bound on the time."""
    del alpha, beta
    return jax.random.uniform(key, shape)


def given(law: tuple[float, float]) -> Sampler:
    """Make the sampler that the noise family of this law uses."""
    if law == (0.5, 0.5):
        return lambda key, shape, *_: beta_sampler.draw_arcsine(key, shape)
    angles = beta_sampler.angle_table(*law)
    return lambda key, shape, *_: beta_sampler.draw(key, shape, jnp.asarray(angles))


def by_request(sampler: Sampler, candidates: int) -> Callable[..., Array]:
    def draw(key: Array, index: Array, alpha: Array, beta: Array) -> Array:
        return ops.per_request(lambda k: sampler(k, (candidates,), alpha, beta), key, index)

    return draw


def measure(
    law: tuple[float, float], *, requests: int, candidates: int, draws: int, repeats: int
) -> list[dict[str, Any]]:
    """Time all samplers of one law in turn, and compare their draws with the law."""
    shape, key = (requests, candidates), jax.random.key(0)
    shapes = jnp.float32(law[0]), jnp.float32(law[1])
    index = jnp.arange(requests, dtype=jnp.uint32)
    samplers: dict[str, Sampler] = {
        "jax.random.beta": rejection,
        "given shapes": given(law),
        "learned shapes": learned,
        "Kumaraswamy": kumaraswamy,
        "uniform": uniform,
    }
    differentiable = ("jax.random.beta", "learned shapes", "Kumaraswamy")
    calls: dict[str, Callable[[], Any]] = {}
    for name, s in samplers.items():
        batch = jax.jit(lambda k, *ab, s=s: s(k, shape, *ab))
        each = jax.jit(by_request(s, candidates))
        calls[f"{name} batch"] = lambda f=batch: f(key, *shapes)
        calls[f"{name} requests"] = lambda f=each: f(key, index, *shapes)
    for name in differentiable:
        mean = jax.jit(jax.grad(lambda *ab, s=samplers[name]: s(key, shape, *ab).mean(), (0, 1)))
        calls[f"{name} gradient"] = lambda f=mean: f(*shapes)
    times = harness.time_in_turn(calls, repeats=repeats)
    base = times["jax.random.beta requests"].best
    return [
        {
            "law": f"Beta{law}",
            "sampler": name,
            **{
                f"{kind} ms": 1e3 * times[f"{name} {kind}"].best
                if f"{name} {kind}" in times
                else ""
                for kind in ("batch", "requests", "gradient")
            },
            "times faster": base / times[f"{name} requests"].best,
            **errors(sampler, law, draws, name in differentiable),
        }
        for name, sampler in samplers.items()
    ]


def errors(
    sampler: Sampler, law: tuple[float, float], draws: int, differentiable: bool
) -> dict[str, Any]:
    """Compare draws with the law, and the gradient of their mean with (b, -a) / (a + b)^2."""
    key, (a, b) = jax.random.key(1), law
    shapes = jnp.float32(a), jnp.float32(b)
    x = np.float64(jax.jit(lambda *ab: sampler(key, (draws,), *ab))(*shapes))
    row: dict[str, Any] = {"KS": float(stats.kstest(x, stats.beta(a, b).cdf).statistic)}
    if not differentiable:
        return {**row, "d mean / d alpha": "", "d mean / d beta": "", "exact": ""}
    mean = jax.grad(lambda *ab: sampler(key, (draws,), *ab).mean(), argnums=(0, 1))
    by_a, by_b = (float(g) for g in jax.jit(mean)(*shapes))
    exact = f"{b / (a + b) ** 2:.4g}, {-a / (a + b) ** 2:.4g}"
    return {**row, "d mean / d alpha": by_a, "d mean / d beta": by_b, "exact": exact}


def main(arguments: argparse.Namespace) -> None:
    """Measure each law and print."""
    laws = LAWS[1:2] if arguments.smoke else LAWS
    sizes = (
        dict(requests=8, candidates=5, draws=1_000, repeats=1)
        if arguments.smoke
        else dict(requests=512, candidates=50, draws=200_000, repeats=20)
    )
    rows = [row for law in laws for row in measure(law, **sizes)]
    harness.report("Beta noise", rows, arguments.json)
    chance = 1.36 / sizes["draws"] ** 0.5
    print(f"\nKS of {sizes['draws']} right draws is below {chance:.2g} 19 times in 20")


if __name__ == "__main__":
    main(harness.parser(__doc__).parse_args())
